// SPDX-License-Identifier: MIT
// The commands of `vkmoe`: one line here, one file cmd_<name>.c. Each gets its own name as argv[0]
// and returns an exit code.
#ifndef COMMANDS_H
#define COMMANDS_H

// X(name, summary)
#define COMMAND_LIST(X)                                                                            \
    X(info, "list the devices of this machine")                                                    \
    X(run, "run one layer of a model on the rows of a file")                                       \
    X(inspect, "tell what a model file holds, and what it takes to run it")                        \
    X(quantize, "write a model's layers in another type")                                          \
    X(train, "train a model from a configuration")                                                 \
    X(eval, "measure a model on a data set")                                                       \
    X(predict, "write a model's answers for the rows of a file")                                   \
    X(explain, "tell which expert serves what, and why")                                           \
    X(verify, "compare a device with the f64 reference")                                           \
    X(bench, "measure layers on devices, with numbers to trust")                                   \
    X(compare, "tell which cases of a benchmark became slower")                                    \
    X(report, "make a page of what bench measured")                                                \
    X(tune, "test and time the kernels of a device")

#define COMMAND_DECLARE(name, summary) int cmd_##name(int argc, char **argv);
COMMAND_LIST(COMMAND_DECLARE)
#undef COMMAND_DECLARE

#endif
