/* SPDX-License-Identifier: Apache-2.0 */
/* The layout that ABI 1.0 has on 64-bit machines: sizes and the places of what plugins of any minor will look at. */
#include <criterion/criterion.h>
#include <homeport/plugin.h>

_Static_assert(sizeof(struct hp_plugin) == 184, "hp_plugin of ABI 1.0");
_Static_assert(sizeof(struct hp_host) == 112, "hp_host of ABI 1.0");
_Static_assert(sizeof(struct hp_flow) == 96, "hp_flow of ABI 1.0");
_Static_assert(sizeof(struct hp_claim) == 40, "hp_claim of ABI 1.0");
_Static_assert(sizeof(struct hp_record) == 32, "hp_record of ABI 1.0");
_Static_assert(sizeof(struct hp_option) == 40, "hp_option of ABI 1.0");
_Static_assert(sizeof(struct hp_service) == 72, "hp_service of ABI 1.0");
_Static_assert(sizeof(struct hp_profile) == 32, "hp_profile of ABI 1.0");
_Static_assert(sizeof(struct hp_ike) == 32, "hp_ike of ABI 1.0");
_Static_assert(sizeof(struct hp_sight) == 24, "hp_sight of ABI 1.0");
_Static_assert(sizeof(struct hp_value) == 24, "hp_value is frozen");
_Static_assert(sizeof(struct hp_endpoint) == 24, "hp_endpoint is frozen");
_Static_assert(sizeof(struct hp_counter) == 16, "hp_counter is frozen");
_Static_assert(offsetof(struct hp_plugin, size) == 8 && offsetof(struct hp_plugin, name) == 16 &&
                   offsetof(struct hp_plugin, options) == 48 && offsetof(struct hp_plugin, decides) == 104 &&
                   offsetof(struct hp_plugin, check) == 112 && offsetof(struct hp_plugin, extension) == 176,
               "members of hp_plugin");
_Static_assert(offsetof(struct hp_host, problem) == 16 && offsetof(struct hp_host, claim) == 48 &&
                   offsetof(struct hp_host, extension) == 104,
               "members of hp_host");
_Static_assert(offsetof(struct hp_flow, service) == 8 && offsetof(struct hp_flow, data) == 64 &&
                   offsetof(struct hp_flow, ike) == 80 && offsetof(struct hp_flow, server) == 88,
               "members of hp_flow");

Test(sdk, a_member_that_the_other_side_does_not_have_is_told)
{
    struct hp_claim claim = {.size = 24};

    cr_assert(HP_HAS(&claim, key));
    cr_assert_not(HP_HAS(&claim, ttl_ms));
}

Test(sdk, answers_keep_their_numbers)
{
    const int32_t answers[] = {HP_NOTHING, HP_REFUSE, HP_FAILED};

    for (int32_t i = 0; i < 3; i++)
        cr_assert_eq(answers[i], -1 - i);
    cr_assert_eq(sizeof(uint8_t[HP_KEY_MAX]), 64);
}
