"""How work is spread over the machine."""

from qlorabench.engines.pool import JobFailed, JobTimeout, Pool

__all__ = ["JobFailed", "JobTimeout", "Pool"]
