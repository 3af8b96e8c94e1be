"""Kafka without brokers."""
