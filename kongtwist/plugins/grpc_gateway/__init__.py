"""grpc-gateway: JSON over HTTP to gRPC services. Kong 3.9 `grpc-gateway`."""

from .gateway_phases import GRPCGateway

__all__ = ["GRPCGateway"]
