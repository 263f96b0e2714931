"""One file a method: its settings, its grid under a profile, how a setting is applied, label, look and source."""

from collections.abc import Mapping
from types import MappingProxyType

from helpers.methods.attribution_clamp import AttributionClamp
from helpers.methods.clamp_prime import ClampPrime
from helpers.methods.crisp import CRISP
from helpers.methods.dsg import DSG
from helpers.methods.grad_diff import GradDiff
from helpers.methods.gradient_ascent import GradientAscent
from helpers.methods.method import PUBLISHED_FEATURES, Method, looks
from helpers.methods.npo import NPO
from helpers.methods.refusal_clamp import RefusalClamp
from helpers.methods.retrained import Retrained
from helpers.methods.rmu import RMU
from helpers.methods.scrub import SCRUB
from helpers.methods.simnpo import SimNPO
from helpers.methods.ssd import SSD
from helpers.methods.static_clamp import StaticClamp
from helpers.methods.unconditional import Unconditional

__all__ = ["METHODS", "PUBLISHED_FEATURES", "Method", "looks"]

# By the name that commands, notebooks and the tables of a profile use. A new method is a file and a line here.
METHODS: Mapping[str, type[Method]] = MappingProxyType({
    "static_clamp": StaticClamp,
    "attribution_clamp": AttributionClamp,
    "clamp_prime": ClampPrime,
    "refusal_clamp": RefusalClamp,
    "unconditional": Unconditional,
    "dsg": DSG,
    "rmu": RMU,
    "gradient_ascent": GradientAscent,
    "grad_diff": GradDiff,
    "npo": NPO,
    "simnpo": SimNPO,
    "ssd": SSD,
    "scrub": SCRUB,
    "crisp": CRISP,
    "retrained": Retrained,
})  # fmt: skip
