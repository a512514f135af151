// SPDX-License-Identifier: MIT
// Forms of layers that the factors of verify_cases.h do not have: each is a layer of theirs with
// some fields changed. A new form is a row of the list in verify_forms.c.
#ifndef VERIFY_FORMS_H
#define VERIFY_FORMS_H

#include "verify_cases.h"

// Form i, counted from 1, as a case without tokens and stride, and its name. false: there is none.
bool verify_form(uint32_t i, struct verify_case *out, const char **name);

// Changes the fields of form i in a layer that has the levels of verify_form.
void verify_form_apply(uint32_t i, vkmoe_layer_desc *d);

#endif
