/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/demo/plugins.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tree {
    char root[64], from[128], to[128];
};

static void make(const char *root, const char *path, const char *text)
{
    char full[256];
    FILE *file;

    snprintf(full, sizeof full, "%s/%s", root, path);
    if (text == NULL) {
        cr_assert_eq(mkdir(full, 0700), 0, "%s", full);
        return;
    }
    file = fopen(full, "w");
    cr_assert_not_null(file, "%s", full);
    fputs(text, file);
    fclose(file);
}

static void tree_make(struct tree *tree)
{
    strcpy(tree->root, "/tmp/homeport-plugins-XXXXXX");
    cr_assert_not_null(mkdtemp(tree->root));
    snprintf(tree->from, sizeof tree->from, "%s/build/plugins", tree->root);
    snprintf(tree->to, sizeof tree->to, "%s/shared", tree->root);
    make(tree->root, "build", NULL);
    make(tree->root, "build/core", NULL);
    make(tree->root, "build/plugins", NULL);
    make(tree->root, "build/plugins/one", NULL);
    make(tree->root, "build/plugins/one/one.so", "the first");
    make(tree->root, "build/plugins/one/one.so.p", NULL);
    make(tree->root, "build/plugins/two", NULL);
    make(tree->root, "build/plugins/two/two.so", "the second");
    make(tree->root, "build/plugins/empty", NULL);
    make(tree->root, "build/plugins/stray.txt", "no plugin");
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *at)
{
    (void)status, (void)type, (void)at;
    return remove(path);
}

static mode_t mode_of(const struct tree *tree, const char *path)
{
    char full[256];
    struct stat status;

    snprintf(full, sizeof full, "%s/%s", tree->to, path);
    return stat(full, &status) == 0 ? status.st_mode & 07777 : 0;
}

Test(plugins, copies_can_be_read_by_all_and_written_by_nobody_else_whatever_the_umask)
{
    static const mode_t masks[] = {0, 002, 022, 077};

    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        struct error error = {0};
        struct tree tree;

        tree_make(&tree);
        umask(masks[i]);
        cr_assert_eq(plugins_copy(tree.from, tree.to, &error), 0, "%s", error.what);
        umask(022);
        cr_assert_eq(mode_of(&tree, ""), 0755);
        cr_assert_eq(mode_of(&tree, "one"), 0755);
        cr_assert_eq(mode_of(&tree, "one/one.so"), 0755);
        cr_assert_eq(mode_of(&tree, "two/two.so"), 0755);
        nftw(tree.root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
}

Test(plugins, nothing_but_plugins_is_copied)
{
    struct error error = {0};
    struct tree tree;

    tree_make(&tree);
    cr_assert_eq(plugins_copy(tree.from, tree.to, &error), 0, "%s", error.what);
    cr_assert_eq(mode_of(&tree, "one/one.so.p"), 0);
    cr_assert_eq(mode_of(&tree, "empty"), 0);
    cr_assert_eq(mode_of(&tree, "stray.txt"), 0);
    nftw(tree.root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

Test(plugins, a_copy_has_all_of_it)
{
    struct error error = {0};
    struct tree tree;
    char path[256], big[100001], copied[100001];
    FILE *file;

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    tree_make(&tree);
    make(tree.root, "build/plugins/two/two.so", big);
    cr_assert_eq(plugins_copy(tree.from, tree.to, &error), 0, "%s", error.what);
    snprintf(path, sizeof path, "%s/two/two.so", tree.to);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_assert_eq(fread(copied, 1, sizeof copied, file), sizeof big - 1);
    cr_assert_arr_eq(copied, big, sizeof big - 1);
    fclose(file);
    nftw(tree.root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

Test(plugins, what_cannot_be_copied_is_named)
{
    struct error error = {0};
    struct tree tree;

    tree_make(&tree);
    cr_assert_eq(plugins_copy("/nowhere", tree.to, &error), -ENOENT);
    cr_assert_not_null(strstr(error.what, "/nowhere"));
    cr_assert_eq(plugins_copy(tree.from, "/nowhere/plugins", &error), -ENOENT);
    cr_assert_not_null(strstr(error.what, "/nowhere/plugins"));
    make(tree.root, "shared", "a file");
    cr_assert_lt(plugins_copy(tree.from, tree.to, &error), 0);
    nftw(tree.root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

Test(plugins, those_of_the_build_tree_are_found_beside_the_binary)
{
    struct tree tree;
    char binary[128], folder[PATH_MAX], real[PATH_MAX];

    tree_make(&tree);
    snprintf(binary, sizeof binary, "%s/build/core/homeport", tree.root);
    plugins_find(folder, binary);
    cr_assert_not_null(realpath(folder, real));
    cr_assert_str_eq(real, tree.from);
    nftw(tree.root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
