"""Kafka: connections to brokers, and what sends to them. The library is kafka-python, which has threads of its own."""
