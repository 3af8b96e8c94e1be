"""aws-lambda: have a function of AWS Lambda answer. Kong 3.9 `aws-lambda`."""

from .invocation import AWSLambda

__all__ = ["AWSLambda"]
