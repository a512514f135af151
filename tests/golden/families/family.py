# SPDX-License-Identifier: MIT
"""What a row of the tables says about one golden block."""
import dataclasses
from collections.abc import Callable

import torch

from formula import Rules
from packed import Encoding


@dataclasses.dataclass(frozen=True)
class Upstream:
    """The module that computes the golden: the folder as written, loaded by transformers."""
    module: str                                 # its name inside the model
    loader: str = 'AutoModelForCausalLM'        # class of transformers
    call: Callable = lambda module, x, given: module(x[None])
    rename: tuple = ()                          # a prefix of names that it does not know, its own
    config: dict = dataclasses.field(default_factory=dict)  # what its configuration lacks


@dataclasses.dataclass(frozen=True)
class Gguf:
    arch: str
    keys: dict = dataclasses.field(default_factory=dict)    # behind `arch.`
    types: dict = dataclasses.field(default_factory=dict)   # canonical name or 'all' -> GGML type
    n_parts: int = 1
    fused: bool = False                                     # gate and up in one tensor
    names: dict = dataclasses.field(default_factory=dict)   # other than the usual
    file: str = 'model.gguf'
    outputs: str = ''           # folder of its outputs, if its types change the weights


@dataclasses.dataclass(frozen=True)
class Family:
    name: str
    rules: Rules
    config: dict
    layout: Callable                            # canonical tensors -> named tensors
    source: str
    shows: str
    upstream: Upstream = None
    original: Callable = None                   # (config, tensors, x, ...) -> y, else
    layer: int = 0
    extras: tuple = ()
    dtype: torch.dtype = torch.float32
    loud: float = 1.0
    d_dense: int = 0
    n_shards: int = 1
    n_tokens: int = 8
    clear: float = 1e-3                         # how far apart what a selection compares is
    x_std: float = 1.0
    tweak: Callable = None                      # (w, given): in place, to make a rule visible
    encoding: Encoding = None                   # how the weights are packed
    faint: dict = dataclasses.field(default_factory=dict)   # change -> what it moves y at least
    invisible: dict = dataclasses.field(default_factory=dict)   # change -> why it cannot be seen
