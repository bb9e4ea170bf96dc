"""Asks a peer for the contract that it serves, and writes it down as a descriptor set.

    python reflect.py HOST:PORT keystead.binpb

`protoc --descriptor_set_in=keystead.binpb` makes a client of that, in any language; the `.proto` files
need not be at hand.
"""

import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def files(address):
    """The files of all `keystead.v1` services that the peer serves, each behind those that it imports."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        found = {}

        def take(file):
            for imported in file.dependencies:
                take(imported)
            found.setdefault(file.name, file)

        for service in database.get_services():
            if service.startswith("keystead.v1."):
                take(pool.FindServiceByName(service).file)
        answer = descriptor_pb2.FileDescriptorSet()
        for file in found.values():
            file.CopyToProto(answer.file.add())
        return answer


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python reflect.py HOST:PORT FILE")
    contract = files(sys.argv[1])
    with open(sys.argv[2], "wb") as out:
        out.write(contract.SerializeToString())
    print(f"{len(contract.file)} files: " + " ".join(file.name for file in contract.file))


if __name__ == "__main__":
    main()
