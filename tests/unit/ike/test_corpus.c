/* SPDX-License-Identifier: Apache-2.0 */
/* The datagrams that the fuzzer starts from, and what each is on each port. */
#include "claims.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

struct sample {
    const char *name;
    enum ike_kind on_500, on_4500, elsewhere;
};

static const struct sample samples[] = {
    {"sa-init-request", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"sa-init-request-with-cookie", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"sa-init-response", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"sa-init-invalid-ke", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"sa-init-no-proposal-chosen", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"marked-sa-init-request", IKE_OTHER, IKE_MESSAGE, IKE_MESSAGE},
    {"marked-auth-request", IKE_OTHER, IKE_MESSAGE, IKE_MESSAGE},
    {"marked-auth-response", IKE_OTHER, IKE_MESSAGE, IKE_MESSAGE},
    {"marked-auth-fragment", IKE_OTHER, IKE_MESSAGE, IKE_MESSAGE},
    {"marked-informational", IKE_OTHER, IKE_MESSAGE, IKE_MESSAGE},
    {"header-alone", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"header-cut", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"length-too-long", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"length-too-short", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"length-huge", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"ikev1-main-mode", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"marked-ikev1", IKE_OTHER, IKE_OTHER, IKE_OTHER},
    {"version-2-1", IKE_MESSAGE, IKE_ESP, IKE_MESSAGE},
    {"spi-zero", IKE_OTHER, IKE_OTHER, IKE_OTHER},
    {"esp", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"esp-shortest", IKE_OTHER, IKE_ESP, IKE_ESP},
    {"keepalive", IKE_OTHER, IKE_KEEPALIVE, IKE_KEEPALIVE},
    {"marker-alone", IKE_OTHER, IKE_OTHER, IKE_OTHER},
    {"empty", IKE_OTHER, IKE_OTHER, IKE_OTHER},
};

static const char *corpus(void)
{
    const char *folder = getenv("HOMEPORT_CORPUS");

    return folder != NULL ? folder : "tests/fuzz/corpus/ike";
}

static size_t sample_read(const char *name, uint8_t *data, size_t size)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", corpus(), name);
    file = fopen(path, "rb");
    cr_assert_not_null(file, "%s: run from the source tree or set HOMEPORT_CORPUS", path);
    size = fread(data, 1, size, file);
    fclose(file);
    return size;
}

static enum ike_kind kind_on(const uint8_t *data, size_t size, uint16_t port)
{
    struct ike_datagram read;

    ike_read(&read, data, size, port);
    return read.kind;
}

Test(corpus, each_sample_is_what_its_name_says)
{
    uint8_t data[2048];

    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *sample = &samples[i];
        size_t size = sample_read(sample->name, data, sizeof data);
        cr_expect_eq(kind_on(data, size, 500), sample->on_500, "%s on 500", sample->name);
        cr_expect_eq(kind_on(data, size, 4500), sample->on_4500, "%s on 4500", sample->name);
        cr_expect_eq(kind_on(data, size, 15500), sample->elsewhere, "%s elsewhere", sample->name);
    }
}

/* Files that a fuzzer found and somebody added are read, too. */
Test(corpus, claims_hold_for_every_cut_of_every_file)
{
    uint8_t data[2048];
    size_t files = 0;
    DIR *folder = opendir(corpus());

    cr_assert_not_null(folder, "%s", corpus());
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        for (size_t size = sample_read(entry->d_name, data, sizeof data) + 1; size > 0; size--)
            claims_hold(data, size - 1);
        files++;
    }
    closedir(folder);
    cr_assert_geq(files, sizeof samples / sizeof *samples);
}
