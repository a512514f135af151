// SPDX-License-Identifier: MIT
// model.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/model.h>
#include <vkmoe/model.h>

int main(void)
{
    vkmoe_session_desc session = vkmoe_session_desc_init();
    vkmoe_session_io io = vkmoe_session_io_init();
    vkmoe_dataset_desc dataset = vkmoe_dataset_desc_init();

    bool defaults = session.max_rows == 1024 && !session.one_layer && !io.x && !io.gates &&
                    session.precision == VKMOE_PRECISION_EXACT &&
                    session.experts == VKMOE_EXPERTS_ALL && !session.variant && !io.layer_x &&
                    dataset.targets == VKMOE_TARGETS_NONE && !dataset.target;
    bool sizes = session.struct_size == sizeof session && io.struct_size == sizeof io &&
                 dataset.struct_size == sizeof dataset;
    return defaults && sizes ? 0 : 1;
}
