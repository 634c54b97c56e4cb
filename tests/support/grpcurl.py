"""What examples/grpcurl.sh uses of grpcurl, where that is not installed: no message's form is known but by reflection.

python -m tests.support.grpcurl -plaintext -H "name: value" -d JSON ADDRESS SERVICE/METHOD
"""

import argparse
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def written(message: Message) -> bytes:
    return message.SerializeToString()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", dest="header", required=True)
    parser.add_argument("-d", dest="data", required=True)
    parser.add_argument("address")
    parser.add_argument("method")
    given = parser.parse_args()
    service, _, name = given.method.partition("/")
    header, _, value = given.header.partition(": ")
    with grpc.insecure_channel(given.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(service).FindMethodByName(name)
        call: Any = (channel.unary_stream if method.server_streaming else channel.unary_unary)(
            f"/{given.method}",
            request_serializer=written,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        request = Parse(given.data, GetMessageClass(method.input_type)(), descriptor_pool=pool)
        replies = call(request, metadata=((header, value),), timeout=60)
        for reply in replies if method.server_streaming else (replies,):
            print(MessageToJson(reply, descriptor_pool=pool, preserving_proto_field_name=True))
