"""An agent of your own in Python: reports what it sees of a site, or watches what the service decides.

    pip install -r requirements.txt
    python agent.py report shop.example.com UNDER_ATTACK --agent my-probe
    python agent.py watch --count 1

KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL say where the servers are.
"""

import argparse
import json
import os
import pathlib
import sys
import time

from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

KAFKA = os.environ.get("KAFKA_BOOTSTRAP", "localhost:9092")
REGISTRY = os.environ.get("SCHEMA_REGISTRY_URL", "http://localhost:8081")
SCHEMA = pathlib.Path(__file__).parents[2] / "schemas" / "site-attack-report.avsc"


def report(args):
    topic = f"{args.application}.reports"
    serialize = AvroSerializer(
        SchemaRegistryClient({"url": REGISTRY}),
        SCHEMA.read_text(),
        conf={"subject.name.strategy": topic_record_subject_name_strategy},
    )
    # murmur2 is what the service and Java use; librdkafka's default is another hash.
    producer = Producer({"bootstrap.servers": KAFKA, "partitioner": "murmur2_random", "acks": "all"})
    now_ms = int(time.time() * 1000)
    value = {
        "object_id": args.object,
        "agent_id": args.agent,
        "verdict": args.verdict,
        "observed_at_ms": now_ms,
        "sequence": now_ms,
        "attack_kind": None,
        "requests_per_second": None,
        "detail": "sent from Python",
    }
    failed = []
    producer.produce(
        topic,
        key=args.object.encode(),
        value=serialize(value, SerializationContext(topic, MessageField.VALUE)),
        on_delivery=lambda error, message: failed.append(error) if error else print(message.partition(), message.offset()),
    )
    left = producer.flush(30)
    if failed or left:
        sys.exit(f"the report was not delivered: {failed or 'no answer'}")


def watch(args):
    topic = f"{args.application}.states"
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": REGISTRY}))
    consumer = Consumer(
        {
            "bootstrap.servers": KAFKA,
            "group.id": f"{args.application}.python",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([topic])
    deadline = time.monotonic() + 60
    seen = 0
    while seen < args.count and time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        state = deserialize(message.value(), SerializationContext(topic, MessageField.VALUE))
        print(json.dumps(state), flush=True)
        seen += 1
    consumer.close()
    if seen < args.count:
        sys.exit(f"only {seen} states within a minute")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--application", default="site-attack", help="application id")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("report", help="send one report")
    one.add_argument("object")
    one.add_argument("verdict", choices=["CLEAR", "UNDER_ATTACK"])
    one.add_argument("--agent", default="python-probe")
    one.set_defaults(run=report)
    more = commands.add_parser("watch", help="print states as they are decided")
    more.add_argument("--count", type=int, default=1)
    more.set_defaults(run=watch)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
