# SPDX-License-Identifier: MIT
"""Mixture-of-Experts layers on Vulkan and on CPU: libvkmoe for Python, over ctypes and numpy.

    import vkmoe
    with vkmoe.Context('auto') as context:
        layer = context.load('Mixtral-8x7B-v0.1', 0)     # any model that `vkmoe inspect` knows
        out = layer.run(x)                               # x (n_tokens, d_model)
        out.y, out.ids, out.gates
        grads = layer.gradients(x, dy)                   # of sum(dy * y)

        layer = context.layer({'top_k': 2, 'gated': True, 'act': 'silu'}, router=w, gate=g, up=u,
                              down=d)                    # from arrays

Arrays are float32 unless said otherwise; others are converted. Words and rules are those of
vkmoe/layer.h. Failures raise vkmoe.Error with the library's own text. Nothing is compiled: the two
libraries are looked for in the folder VKMOE_LIBRARIES, then where the system has them.
"""
import ctypes
import ctypes.util
import json
import os
import pathlib
from ctypes import POINTER, Structure, byref, c_bool, c_char, c_char_p, c_double, c_float, \
    c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import NamedTuple

import numpy as np

TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_K', 'q5_K', 'q6_K', 'q2_K', 'mxfp4', 'fp8']
PRECISIONS = ['exact', 'half', 'int8']
SHARED_EXPERT = 0xffffffff


class Error(Exception):
    """A call that failed; `status` is the name of its code, "VKMOE_E_SHAPE" for instance."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


# ---- the C structures: fields in order, names as in the headers ---------------------------------

def _structure(name, fields):
    """A Structure from text: 'type name name, type name' with types of _WORDS."""
    parsed = []
    for part in fields.replace('\n', ' ').split(','):
        kind, *names = part.split()
        parsed += [(field, _WORDS[kind]) for field in names]
    return type(name, (Structure,), {'_fields_': parsed})


_WORDS = {'size': c_size_t, 'u32': c_uint32, 'enum': c_uint32, 'bool': c_bool, 'float': c_float,
          'double': c_double, 'pointer': c_void_p, 'text': c_char_p, 'u64': c_uint64}

ContextDesc = _structure('ContextDesc', '''size struct_size, pointer host, text device,
    u32 n_threads, text cpu_isa, text cache_dir, enum addressing,
    bool floor validation debug_labels, text disable''')
LayerDesc = _structure('LayerDesc', '''size struct_size,
    u32 n_experts top_k d_model d_ff d_out d_shared_ff n_zero d_latent, enum in_type out_type,
    bool router_input router_prenorm, float prenorm_const prenorm_eps,
    bool router_bias selection_bias, float logit_softcap, enum score rank select,
    float select_p sparsemixer_eps, u32 n_group topk_group, enum group_score,
    bool group_fill_zero, enum gate_source norm, float norm_p norm_eps routed_scale,
    bool expert_scale,
    enum expert_kind, bool gated, enum act act_out, float act_alpha up_add, enum clamp,
    float limit limit_shared situ_beta situ_lambda, bool gate_bias up_bias down_bias,
    bool weight_on_input latent_norm out_bias, u32 adjugate_group d_adjugate,
    float adjugate_scale, pointer expert_d_ff expert_act expert_alias,
    enum shared_gate, float c_routed c_shared out_scale,
    enum capacity_mode, u32 capacity capacity_rows, float jitter aux_coef z_coef bias_rate,
    float capacity_factor, bool capacity_renorm, float latent_norm_eps, enum latent_type,
    u32 n_token_ids, bool shared_gate_bias own_shared_types,
    enum shared_in_type shared_out_type''')
Tensor = _structure('Tensor', 'pointer data, enum type, pointer read read_user')
_WORDS['tensor'] = Tensor
ExpertTensors = _structure('ExpertTensors', '''tensor gate up down,
    pointer gate_bias up_bias down_bias''')
RouterTensors = _structure('RouterTensors', '''tensor weight, pointer bias selection_bias
    shared_gate shared_gate_bias expert_scale prenorm_scale table''')
LatentTensors = _structure('LatentTensors', 'tensor down up, pointer norm')
WeightsDesc = _structure('WeightsDesc', '''size struct_size, pointer layer router experts
    packed_experts shared packed_shared vk_buffer adjugates packed_adjugates latent out_bias
    load_expert load_user''')
PlanDesc = _structure('PlanDesc', '''size struct_size, pointer layer, u32 max_tokens,
    enum precision x_type, text variant, bool scores counters, float budget_ms,
    enum operation''')
Io = _structure('Io', '''size struct_size, pointer x, size x_stride, pointer y, size y_stride,
    pointer ids gates scores router_x, size router_x_stride, pointer token_ids,
    pointer rows, size rows_stride, pointer slots counts offsets''')
ExpertGrads = _structure('ExpertGrads', 'pointer gate up down gate_bias up_bias down_bias')
RouterGrads = _structure('RouterGrads', 'pointer weight bias shared_gate')
BackwardIo = _structure('BackwardIo', '''size struct_size, pointer dy, size dy_stride, pointer dx,
    size dx_stride, pointer router experts shared, bool accumulate''')
CheckpointDesc = _structure('CheckpointDesc', '''size struct_size, pointer host, text assume
    description''')
LoadDesc = _structure('LoadDesc', 'size struct_size, pointer in_type out_type vk_buffer')


class DeviceInfo(Structure):
    """What one device is; see vkmoe_device_info."""
    _fields_ = [('index', c_uint32), ('type', c_uint32), ('name', c_char * 256),
                ('uuid', c_char * 33), ('pci', c_char * 16), ('vendor_id', c_uint32),
                ('device_id', c_uint32), ('driver', c_char * 64), ('driver_version', c_char * 64),
                ('api', c_char * 16), ('memory_bytes', c_uint64), ('tier', c_char * 32),
                ('features', c_char * 512), ('memory', c_char * 32)]


# ---- the libraries -------------------------------------------------------------------------------

def _find(name):
    folders = os.environ.get('VKMOE_LIBRARIES', '').split(os.pathsep)
    for folder in filter(None, folders):
        for path in sorted(pathlib.Path(folder).rglob(f'lib{name}.so*')):
            if path.is_file():
                return str(path)
    return ctypes.util.find_library(name) or f'lib{name}.so.0'


class _Libraries:
    """Functions of both libraries, loaded when the first one is used. A call that returns a status
    other than VKMOE_OK raises."""

    TEXTS = {'vkmoe_error_text', 'vkmoe_status_name'}
    NOTHING = {'vkmoe_context_destroy', 'vkmoe_weights_destroy', 'vkmoe_plan_destroy',
               'vkmoe_bind_destroy', 'vkmoe_checkpoint_destroy'}

    def __init__(self):
        self._loaded = None

    def raw(self, name):
        if self._loaded is None:
            core = ctypes.CDLL(_find('vkmoe'), mode=ctypes.RTLD_GLOBAL)
            self._loaded = core, ctypes.CDLL(_find('vkmoe-model'))
        for library in self._loaded:
            if hasattr(library, name):
                return getattr(library, name)
        raise AttributeError(f'{name}: neither library has it')

    def __getattr__(self, name):
        function = self.raw(name)
        if name in self.TEXTS:
            function.restype = c_char_p
        elif name in self.NOTHING:
            function.restype, function.argtypes = None, [c_void_p]
        else:
            function.restype, function.errcheck = c_int32, self._check
        setattr(self, name, function)
        return function

    def _check(self, status, _function, _arguments):
        if status != 0:
            raise Error(self.vkmoe_status_name(status).decode(), self.vkmoe_error_text().decode())
        return status


_c = _Libraries()


def _desc(kind, **fields):
    """A desc with its size and these fields."""
    return kind(struct_size=ctypes.sizeof(kind), **fields)


def _layer_desc():
    ones = {name: 1.0 for name in ['norm_p', 'routed_scale', 'act_alpha', 'c_routed', 'c_shared',
                                   'out_scale']}
    return _desc(LayerDesc, **ones)


def _address(array):
    return None if array is None else array.ctypes.data


def _f32(array, shape, name):
    """A contiguous float32 array of this shape; None stays None."""
    if array is None:
        return None
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.shape != tuple(shape):
        raise ValueError(f'{name} has shape {array.shape}: the layer takes {tuple(shape)}')
    return array


def _type(name):
    if name not in TYPES:
        raise ValueError(f'type {name!r}: there are {" ".join(TYPES)}')
    return TYPES.index(name)


def devices():
    """The devices of this machine: a list of dicts, Vulkan devices first, the CPU last."""
    n = c_uint32(0)
    _c.vkmoe_device_list(None, byref(n))
    found = (DeviceInfo * n.value)()
    _c.vkmoe_device_list(found, byref(n))
    return [_info(info) for info in found[:n.value]]


def _info(info):
    values = ((name, getattr(info, name)) for name, *_ in DeviceInfo._fields_)
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values}


# ---- context and layers --------------------------------------------------------------------------

class Context:
    """A device: 'auto', 'cpu', 'reference', 'vulkan', an index, a UUID, part of a name."""

    def __init__(self, device=None, threads=0, **options):
        desc = _desc(ContextDesc, device=device.encode() if device else None, n_threads=threads,
                     **options)
        self._handle, self._layers = c_void_p(), []
        _c.vkmoe_context_create(byref(desc), byref(self._handle))

    @property
    def info(self):
        info = DeviceInfo()
        _c.vkmoe_context_info(self._handle, byref(info))
        return _info(info)

    def close(self):
        """Closes the device and every layer on it."""
        for layer in list(self._layers):
            layer.close()
        _c.vkmoe_context_destroy(self._handle)
        self._handle = c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def load(self, path, layer=0, in_type=None, out_type=None, assume=None, description=None,
             precision='exact'):
        """Layer number `layer` of a Hugging Face folder, a .gguf or a vkmoe-model file.

        in_type, out_type: types to convert to; None: as stored. assume: name of a family.
        description: a dict as vkmoe/checkpoint.h describes it.
        """
        desc = _desc(CheckpointDesc, assume=assume.encode() if assume else None,
                     description=json.dumps(description).encode() if description else None)
        checkpoint, weights, loaded = c_void_p(), c_void_p(), _layer_desc()
        types = {name: ctypes.pointer(c_uint32(_type(text)))
                 for name, text in [('in_type', in_type), ('out_type', out_type)] if text}
        load = _desc(LoadDesc, **{name: ctypes.cast(at, c_void_p) for name, at in types.items()})
        _c.vkmoe_checkpoint_open(os.fsencode(path), byref(desc), byref(checkpoint))
        try:
            _c.vkmoe_checkpoint_load(checkpoint, self._handle, c_uint32(layer), byref(load),
                                     byref(loaded), byref(weights), None)
        finally:
            _c.vkmoe_checkpoint_destroy(checkpoint)
        return Layer(self, loaded, weights, precision)

    def layer(self, fields, router, up, down, gate=None, in_type='f32', out_type='f32',
              precision='exact', **tensors):
        """A layer from arrays: router (n_experts + n_zero, d_model), gate and up (n_experts, d_ff,
        d_model), down (n_experts, d_out, d_ff).

        fields: fields of vkmoe_layer_desc by name, numbers and booleans, or values of enums by
        word, as {"score": "sigmoid"}; sizes, `gated` and biases follow from the arrays. tensors:
        gate_bias, up_bias, down_bias (n_experts, .), router_bias, selection_bias, and shared_gate
        (d_model) with the shared expert's shared_up (d_shared_ff, d_model), shared_down and
        shared_gate_proj, whose biases are zeros where the layer has some.
        """
        return Layer(self, *_Build(fields, router, gate, up, down, tensors).create(
            self, _type(in_type), _type(out_type)), precision)


class _Build:
    """Weights from arrays, which live as long as this does."""

    def __init__(self, fields, router, gate, up, down, tensors):
        n_experts, d_ff, d_model = np.shape(up)
        d_out = np.shape(down)[1]
        self.router = _f32(router, np.shape(router), 'router')
        self.shapes = {'gate': (d_ff, d_model), 'up': (d_ff, d_model), 'down': (d_out, d_ff),
                       'gate_bias': (d_ff,), 'up_bias': (d_ff,), 'down_bias': (d_out,)}
        given = {'gate': gate, 'up': up, 'down': down,
                 **{name: tensors.pop(name, None) for name in list(self.shapes)[3:]}}
        self.experts = {name: _f32(given[name], (n_experts, *shape), name)
                        for name, shape in self.shapes.items()}
        self.vectors = {
            'bias': _f32(tensors.pop('router_bias', None), self.router.shape[:1], 'router_bias'),
            'selection_bias': _f32(tensors.pop('selection_bias', None), self.router.shape[:1],
                                   'selection_bias'),
            'shared_gate': _f32(tensors.pop('shared_gate', None), (d_model,), 'shared_gate')}
        self.desc = _parse_layer({
            'n_experts': n_experts, 'top_k': 1, 'd_model': d_model, 'd_ff': d_ff, 'd_out': d_out,
            'n_zero': len(self.router) - n_experts, 'gated': gate is not None,
            'router_bias': self.vectors['bias'] is not None,
            'selection_bias': self.vectors['selection_bias'] is not None,
            **{name: self.experts[name] is not None for name in list(self.shapes)[3:]}, **fields})
        self.shared = self._shared(tensors, d_model, d_out)
        if self.vectors['shared_gate'] is not None and 'shared_gate' not in fields:
            self.desc.shared_gate = 1
        if tensors:
            raise ValueError(f'no such tensor: {", ".join(sorted(tensors))}')

    def _shared(self, tensors, d_model, d_out):
        up = tensors.pop('shared_up', None)
        if up is None:
            return None
        d_ff = self.desc.d_shared_ff = len(up)
        shapes = {'gate': (d_ff, d_model), 'up': (d_ff, d_model), 'down': (d_out, d_ff),
                  'gate_bias': (d_ff,), 'up_bias': (d_ff,), 'down_bias': (d_out,)}
        given = {'gate': tensors.pop('shared_gate_proj', None), 'up': up,
                 'down': tensors.pop('shared_down', None)}
        zeros = {name: np.zeros(shapes[name], np.float32) for name in list(shapes)[3:]
                 if getattr(self.desc, name)}
        return {name: _f32(given.get(name, zeros.get(name)), shape, f'shared {name}')
                for name, shape in shapes.items()}

    @staticmethod
    def _expert(arrays, index):
        at = {name: None if array is None else _address(array if index is None else array[index])
              for name, array in arrays.items()}
        matrices = {name: Tensor(at.pop(name), 0) for name in ['gate', 'up', 'down']}
        return ExpertTensors(**matrices, **at)

    def create(self, context, in_type, out_type):
        self.desc.in_type, self.desc.out_type = in_type, out_type
        router = RouterTensors(weight=Tensor(_address(self.router), 0),
                               **{name: _address(v) for name, v in self.vectors.items()})
        experts = (ExpertTensors * self.desc.n_experts)(
            *(self._expert(self.experts, e) for e in range(self.desc.n_experts)))
        shared = self._expert(self.shared, None) if self.shared else None
        desc = _desc(WeightsDesc, layer=ctypes.addressof(self.desc),
                     router=ctypes.addressof(router), experts=ctypes.addressof(experts),
                     shared=ctypes.addressof(shared) if shared else None)
        weights = c_void_p()
        _c.vkmoe_weights_create(context._handle, byref(desc), byref(weights))
        return self.desc, weights


def _parse_layer(fields):
    """A LayerDesc of fields by name, read by the library: words of enums are its words."""
    desc = _layer_desc()
    plain = {name: value.item() if isinstance(value, np.generic) else value
             for name, value in fields.items()}
    _c.vkmoe_layer_parse(json.dumps(plain).encode(), byref(desc))
    return desc


class Output(NamedTuple):
    """Of one run: y (n_tokens, d_out); ids, i32, and gates (n_tokens, top_k), best first, id -1:
    unused; scores (n_tokens, n_experts + n_zero), what selection ranked by, if asked for."""
    y: np.ndarray
    ids: np.ndarray
    gates: np.ndarray
    scores: np.ndarray | None = None


class Layer:
    """A layer's weights on a device. Used by one thread at a time."""

    def __init__(self, context, desc, weights, precision):
        self.desc, self._context, self._weights = desc, context, weights
        self._precision = PRECISIONS.index(precision)
        self._plans = {}  # with scores or without: (plan, bind, max_tokens)
        context._layers.append(self)

    def close(self):
        for key in list(self._plans):
            self._drop(key)
        _c.vkmoe_weights_destroy(self._weights)
        self._weights = c_void_p()
        if self in self._context._layers:
            self._context._layers.remove(self)

    def _drop(self, scores):
        plan, bind, _ = self._plans.pop(scores)
        _c.vkmoe_bind_destroy(bind)
        _c.vkmoe_plan_destroy(plan)

    def _bind(self, n_tokens, scores):
        """A bind for so many tokens at least; compiled again when they are more than ever."""
        if not self._weights:
            raise ValueError('the layer is closed')
        if scores in self._plans and self._plans[scores][2] >= n_tokens:
            return self._plans[scores][1]
        if scores in self._plans:
            self._drop(scores)
        max_tokens = max(1, 1 << (n_tokens - 1).bit_length())
        desc = _desc(PlanDesc, layer=ctypes.addressof(self.desc), max_tokens=max_tokens,
                     precision=self._precision, scores=scores)
        plan, bind = c_void_p(), c_void_p()
        _c.vkmoe_plan_create(self._context._handle, byref(desc), byref(plan))
        try:
            _c.vkmoe_bind_create(plan, self._weights, None, byref(bind))
        except Error:
            _c.vkmoe_plan_destroy(plan)
            raise
        self._plans[scores] = plan, bind, max_tokens
        return bind

    def _io(self, x, router_input, token_ids, scores):
        """The arrays of a run, and the Io that points to them."""
        d, n = self.desc, len(x)
        inputs = {'x': _f32(x, (n, d.d_model), 'x'),
                  'router_x': _f32(router_input, (n, d.d_model), 'router_input')}
        if token_ids is not None:
            inputs['token_ids'] = np.ascontiguousarray(token_ids, dtype=np.int32)
            if inputs['token_ids'].shape != (n,):
                raise ValueError(f'token_ids has shape {np.shape(token_ids)}: there are {n} rows')
        out = Output(np.full((n, d.d_out or d.d_model), np.nan, np.float32),
                     np.full((n, d.top_k), -1, np.int32), np.full((n, d.top_k), np.nan, np.float32),
                     np.full((n, d.n_experts + d.n_zero), np.nan, np.float32) if scores else None)
        at = {name: _address(array) for name, array in [*inputs.items(), *out._asdict().items()]}
        return inputs, out, _desc(Io, **at)

    def run(self, x, router_input=None, token_ids=None, scores=False):
        """The layer on rows x (n_tokens, d_model): an Output."""
        bind = self._bind(len(x), scores)
        inputs, out, io = self._io(x, router_input, token_ids, scores)
        _c.vkmoe_run(bind, c_uint32(len(inputs['x'])), byref(io))
        return out

    __call__ = run

    def gradients(self, x, dy, router_input=None, token_ids=None):
        """Gradients of sum(dy * y): a dict of arrays, x, router.weight, router.bias, gate, up, down
        (n_experts, ...), their biases, and shared.gate ... of the shared expert."""
        d, n = self.desc, len(x)
        d_out = d.d_out or d.d_model
        dy = _f32(dy, (n, d_out), 'dy')
        bind = self._bind(n, False)
        inputs, _, io = self._io(x, router_input, token_ids, False)
        grads = {'x': np.zeros((n, d.d_model), np.float32),
                 'router.weight': np.zeros((d.n_experts, d.d_model), np.float32)}
        if d.router_bias:
            grads['router.bias'] = np.zeros(d.n_experts, np.float32)
        if d.shared_gate == 1:
            grads['router.shared_gate'] = np.zeros(d.d_model, np.float32)
        router = RouterGrads(*(_address(grads.get(f'router.{name}'))
                               for name, _ in RouterGrads._fields_))
        experts = self._expert_grads(grads, '', (d.n_experts,), d.d_ff)
        shared = self._expert_grads(grads, 'shared.', (1,), d.d_shared_ff) \
            if d.d_shared_ff else None
        out = _desc(BackwardIo, dy=_address(dy), dx=_address(grads['x']),
                    router=ctypes.addressof(router), experts=ctypes.addressof(experts),
                    shared=ctypes.addressof(shared) if shared else None)
        _c.vkmoe_backward(bind, c_uint32(len(inputs['x'])), byref(io), byref(out))
        return {name: array[0] if name.startswith('shared.') else array
                for name, array in grads.items()}

    def _expert_grads(self, grads, prefix, n, d_ff):
        """Adds the arrays of n experts to grads; returns the structures that point to them."""
        d = self.desc
        d_out = d.d_out or d.d_model
        shapes = {'gate': (d_ff, d.d_model) if d.gated else None, 'up': (d_ff, d.d_model),
                  'down': (d_out, d_ff), 'gate_bias': (d_ff,) if d.gate_bias else None,
                  'up_bias': (d_ff,) if d.up_bias else None,
                  'down_bias': (d_out,) if d.down_bias else None}
        for name, shape in shapes.items():
            if shape:
                grads[prefix + name] = np.zeros((*n, *shape), np.float32)
        return (ExpertGrads * n[0])(*(
            ExpertGrads(*(_address(grads[prefix + name][i]) if shape else None
                          for name, shape in shapes.items())) for i in range(n[0])))
