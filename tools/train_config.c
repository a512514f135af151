// SPDX-License-Identifier: MIT
// Configurations of vkmoe train: reading and changing them.
#include "train.h"

#include <stdio.h>
#include <stdlib.h>

json_t *train_load_config(const char *path)
{
    json_error_t error;
    bool from_stdin = strcmp(path, "-") == 0;
    json_t *config = from_stdin ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &error)
                                : json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!config && error.line > 0)
        cli_error("%s: line %d, column %d: %s", path, error.line, error.column, error.text);
    else if (!config)
        cli_error("%s", error.text);
    else if (!json_is_object(config))
        cli_error("%s: not a JSON object", path);
    else
        return config;
    json_decref(config);
    return NULL;
}

// The value behind one part of a path; NULL: there is none.
static json_t *step_into(json_t *at, const char *part)
{
    if (!json_is_array(at))
        return json_object_get(at, part);
    char *end;
    unsigned long i = strtoul(part, &end, 10);
    return *end || end == part ? NULL : json_array_get(at, i);
}

static int put(json_t *at, const char *part, json_t *value)
{
    if (json_is_object(at))
        return json_object_set_new(at, part, value);
    char *end;
    unsigned long i = strtoul(part, &end, 10);
    if (*end || end == part) {
        json_decref(value);
        return -1;
    }
    return json_array_set_new(at, i, value);
}

bool train_set(json_t *config, const char *assignment)
{
    char path[256];
    const char *equals = strchr(assignment, '=');
    size_t size = equals ? (size_t) (equals - assignment) : 0;
    if (size == 0 || size >= sizeof path) {
        cli_error("--set %s: not KEY=VALUE", assignment);
        return false;
    }
    memcpy(path, assignment, size);
    path[size] = '\0';
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (!value)
        value = json_string(equals + 1);
    json_t *at = config;
    char *part = path;
    for (char *dot; at && (dot = strchr(part, '.')); part = dot + 1) {
        *dot = '\0';
        at = step_into(at, part);
    }
    if (json_is_null(value) && json_is_object(at)) {
        json_decref(value);
        value = NULL;
        if (json_object_del(at, part) == 0)
            return true;
    } else if (at && value && put(at, part, value) == 0)
        return true;
    else if (!at)
        json_decref(value);
    cli_error("--set %s: the configuration has no such place", assignment);
    return false;
}
