"""qlorabench: attacks on federated LoRA fine-tuning, and the defenses they meet, measured."""

__version__ = "0.1.0"
