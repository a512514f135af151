// SPDX-License-Identifier: MIT
// checkpoint.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/checkpoint.h>
#include <vkmoe/checkpoint.h>

int main(void)
{
    vkmoe_checkpoint_desc open = vkmoe_checkpoint_desc_init();
    vkmoe_load_desc load = vkmoe_load_desc_init();
    vkmoe_save_desc save = vkmoe_save_desc_init();

    bool defaults = !open.assume && !open.description && !load.in_type && !load.out_type &&
                    save.type == VKMOE_F16 && !save.one_layer && !save.report && !save.progress;
    bool sizes = open.struct_size == sizeof open && load.struct_size == sizeof load &&
                 save.struct_size == sizeof save;
    return defaults && sizes ? 0 : 1;
}
