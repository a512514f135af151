// SPDX-License-Identifier: MIT
// Status names and the error text of a thread.
#include "check.h"

#include "base/status.h"

#include <pthread.h>

static void test_status_names(void **state)
{
    (void) state;
    assert_string_equal(vkmoe_status_name(VKMOE_OK), "VKMOE_OK");
    assert_string_equal(vkmoe_status_name(VKMOE_E_NO_DEVICE), "VKMOE_E_NO_DEVICE");
    assert_string_equal(vkmoe_status_name(VKMOE_E_CANCELLED), "VKMOE_E_CANCELLED");
    assert_string_equal(vkmoe_status_name((enum vkmoe_status) -12), "unknown status");
    assert_string_equal(vkmoe_status_name((enum vkmoe_status) 1), "unknown status");
}

static void test_text(void **state)
{
    (void) state;
    assert_int_equal(moe_fail(VKMOE_E_SHAPE, "%d of %s", 7, "nine"), VKMOE_E_SHAPE);
    assert_string_equal(vkmoe_error_text(), "7 of nine");
    vkmoe_error_set(vkmoe_error_text() + 5); // a part of itself
    assert_string_equal(vkmoe_error_text(), "nine");
    vkmoe_error_set(NULL);
    assert_string_equal(vkmoe_error_text(), "");
}

static void test_long_text_is_cut(void **state)
{
    (void) state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    vkmoe_error_set(text);
    assert_int_equal(strlen(vkmoe_error_text()), 1023);
    moe_fail(VKMOE_E_DATA, "%s", text);
    assert_int_equal(strlen(vkmoe_error_text()), 1023);
}

static void *other_thread(void *seen)
{
    *(bool *) seen = vkmoe_error_text()[0] == '\0';
    vkmoe_error_set("of the other thread");
    return NULL;
}

static void test_each_thread_has_its_own(void **state)
{
    (void) state;
    pthread_t thread;
    bool saw_nothing = false;
    vkmoe_error_set("of this thread");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &saw_nothing), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(saw_nothing);
    assert_string_equal(vkmoe_error_text(), "of this thread");
}

static void test_version(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_version() >> 22, VKMOE_VERSION_MAJOR);
    assert_int_equal(vkmoe_version() >> 12 & 0x3ff, VKMOE_VERSION_MINOR);
    assert_int_equal(vkmoe_version() & 0xfff, VKMOE_VERSION_PATCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_names),     cmocka_unit_test(test_text),
        cmocka_unit_test(test_long_text_is_cut), cmocka_unit_test(test_each_thread_has_its_own),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
