// SPDX-License-Identifier: MIT
// A program that links both libraries: the error of the upper one comes out of the lower one, which
// keeps the thread's text; two copies of that state would leave the text empty.
#include <stdio.h>
#include <string.h>
#include <vkmoe/model.h>

int main(void)
{
    vkmoe_model *model = NULL;
    enum vkmoe_status status = vkmoe_model_open(NULL, "no-such-file.safetensors", &model);
    printf("%s: %s\n", vkmoe_status_name(status), vkmoe_error_text());
    return status == VKMOE_E_IO && strstr(vkmoe_error_text(), "no-such-file") ? 0 : 1;
}
