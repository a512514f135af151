// SPDX-License-Identifier: MIT
// train.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/train.h>
#include <vkmoe/train.h>

static bool backward(void)
{
    vkmoe_backward_io io = vkmoe_backward_io_init();
    return io.struct_size == sizeof io && !io.dy && !io.dx && io.dy_stride == 0 &&
           io.dx_stride == 0 && !io.router && !io.experts && !io.shared && !io.accumulate;
}

static bool net(void)
{
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    return layer.struct_size == sizeof layer && layer.kind == VKMOE_NET_MOE && !layer.layer &&
           layer.score_width == 1.0f && layer.eps == 1e-5f && desc.struct_size == sizeof desc &&
           desc.n_layers == 0 && desc.huber_delta == 1.0f && desc.variance == 1.0f &&
           desc.beta1 == 0.9f && desc.beta2 == 0.999f && desc.adam_eps == 1e-8f &&
           batch.struct_size == sizeof batch && !batch.x && batch.n_tokens == 0;
}

int main(void)
{
    return backward() && net() ? 0 : 1;
}
