// SPDX-License-Identifier: MIT
// explain.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/explain.h>
#include <vkmoe/explain.h>

int main(void)
{
    vkmoe_explain_desc desc = vkmoe_explain_desc_init();
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    bool defaults = desc.n_certain == 5 && desc.layer == 0 && !batch.ids && !batch.layer_x;
    bool sizes = desc.struct_size == sizeof desc && batch.struct_size == sizeof batch;
    return defaults && sizes ? 0 : 1;
}
