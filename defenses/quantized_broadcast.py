"""Quantized broadcast: clients only ever hold a blockwise k-bit copy of the global adapter."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from qlorabench.federation.defense import Defense, DefenseConfig, RoundContext
from qlorabench.federation.state import State, add, subtract
from qlorabench.federation.wire import Payload

from ._codec import CodecConfig, decode, encode


class QuantizedBroadcastConfig(CodecConfig):
    """The codec of the downlink, and how the server moves on."""

    server_rule: Literal["keep-residual", "drop-residual", "towards-clients", "towards-clients-decayed"] = Field(
        default="keep-residual",
        description="`keep-residual`: server += lr * update; `drop-residual`: broadcast + lr * update; "
        "`towards-clients`: server += lr * (clients' mean - server); `-decayed`: the same, lr falling to zero",
    )
    server_lr: float = Field(default=1.0, gt=0, le=10, description="the server's learning rate")

    @model_validator(mode="after")
    def _codec_exists(self) -> QuantizedBroadcastConfig:
        self.codec()
        return self


class QuantizedBroadcast(Defense[QuantizedBroadcastConfig]):
    """FedLPP: the server keeps the adapter in full precision and broadcasts Q(adapter) alone.

    The codec and the four server rules follow the authors' released code (update methods 1 to 4); the paper's
    public text does not say which rule its tables use. The default is the one that keeps the residual, which
    is what the paper's aim, an accurate gradient estimate, calls for. That code rounds to nearest;
    stochastic rounding and double quantization are ours, to be measured beside it. A shared head is sent in
    full precision, as the authors quantize the LoRA factors and nothing else.
    """

    name: ClassVar[str] = "quantized-broadcast"
    Config: ClassVar[type[DefenseConfig]] = QuantizedBroadcastConfig
    paper: ClassVar[str] = "Zhu et al., Promoting Data and Model Privacy in Federated Learning, Findings of EMNLP 2024"
    exclusive: ClassVar[frozenset[str]] = frozenset({"broadcast codec", "server rule"})

    def encode_broadcast(self, payload: Payload, context: RoundContext) -> Payload:
        """Return codes and scales in place of the factors."""
        return encode(self.config.codec(), payload, context)

    def decode_broadcast(self, payload: Payload, context: RoundContext) -> Payload:
        """Return the dequantized factors."""
        return decode(self.config.codec(), payload, context)

    def update_server(self, server: State, held: State, mean: State, context: RoundContext) -> State:
        """Return the server's next adapter by the chosen rule; ``held + mean`` is the clients' mean."""
        rule, lr = self.config.server_rule, self.config.server_lr
        if rule == "keep-residual":
            return add(server, mean, scale=lr)
        if rule == "drop-residual":
            return add(held, mean, scale=lr)
        if rule == "towards-clients-decayed":
            lr *= (context.rounds - context.round) / context.rounds
        return add(server, subtract(add(held, mean), server), scale=lr)
