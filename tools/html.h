// SPDX-License-Identifier: MIT
// What every page that the program writes has in common.
#ifndef HTML_H
#define HTML_H

#include <stdint.h>
#include <stdio.h>

// Text, or an attribute in double quotes: whatever it is, it stays text. Control characters become
// spaces.
void html_text(FILE *page, const char *text);

// The same of its first `most` characters, with an ellipsis if there are more.
void html_short(FILE *page, const char *text, uint32_t most);

#endif
