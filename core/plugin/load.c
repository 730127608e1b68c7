/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a plugin's file and opening it. The happy path: a folder has NAME/NAME.so, dlopen takes it, its one symbol is
 * copied and judged (negotiate.c).
 * Fails: not in any folder                -> the folders that were searched
 *        a folder that we may not enter   -> passed over; named when the plugin is nowhere else
 *        root, and others can write there -> refused before anything of it runs
 *        no ELF file, other machine       -> what the dynamic linker says, in one line
 *        no hp_plugin_v1                  -> another major is named when it has one
 *        the descriptor is wrong          -> the field, both sides' numbers, the remedy
 * A file that was opened stays open: its code may be running (dlclose is unsafe, and never called). */
#include "plugin/negotiate.h"

#include "base/hash.h"
#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BINARY_SUFFIX "/core/homeport" /* where the build tree has the command */
#define SEARCHED_MAX 384

static const uint8_t file_key[16] = "homeport plugin";

/* Folders in the order of the search. */
struct search {
    const char *name;
    char *path; /* plugin.path */
    size_t size;
    bool root;
    char searched[SEARCHED_MAX]; /* for the message */
    char barred[PATH_MAX];       /* the first folder that we may not enter; "" none */
};

static bool is_file(const char *path)
{
    struct stat file;

    return stat(path, &file) == 0 && !S_ISDIR(file.st_mode);
}

/* The first folder on the way to a file that this user may not enter; "" none. */
static void find_barred(char out[PATH_MAX], const char *path)
{
    for (const char *end = strchr(path + 1, '/'); end != NULL; end = strchr(end + 1, '/')) {
        snprintf(out, PATH_MAX, "%.*s", (int)(end - path), path);
        if (access(out, X_OK) < 0 && errno == EACCES)
            return;
    }
    out[0] = '\0';
}

static void note_barred(struct search *search, const char *path)
{
    if (search->barred[0] == '\0')
        find_barred(search->barred, path);
}

static bool search_folder(struct search *search, const char *folder, int length)
{
    size_t used = strlen(search->searched);
    int written;

    if (length == 0)
        return false;
    snprintf(search->searched + used, sizeof search->searched - used, "%s%.*s", used > 0 ? ", " : "", length, folder);
    written = snprintf(search->path, search->size, "%.*s/%s/%s.so", length, folder, search->name, search->name);
    if (written > 0 && (size_t)written < search->size && is_file(search->path))
        return true;
    note_barred(search, search->path);
    written = snprintf(search->path, search->size, "%.*s/%s.so", length, folder, search->name);
    return written > 0 && (size_t)written < search->size && is_file(search->path);
}

/* Folders of $HOMEPORT_PLUGIN_PATH, separated by colons; root does not listen to its environment. */
static bool search_environment(struct search *search)
{
    const char *folders = search->root ? NULL : getenv("HOMEPORT_PLUGIN_PATH");

    while (folders != NULL && *folders != '\0') {
        size_t length = strcspn(folders, ":");

        if (search_folder(search, folders, (int)length))
            return true;
        folders += length + (folders[length] == ':');
    }
    return false;
}

/* BUILD/core/homeport runs: BUILD/plugins. */
static bool search_build_tree(struct search *search)
{
    char folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - sizeof "/plugins");
    size_t suffix = strlen(BINARY_SUFFIX);
    struct stat file;

    if (length < (ssize_t)suffix)
        return false;
    folder[length] = '\0';
    if (strcmp(folder + length - suffix, BINARY_SUFFIX) != 0)
        return false;
    strcpy(folder + length - suffix, "/plugins");
    if (stat(folder, &file) == 0)
        return search_folder(search, folder, (int)strlen(folder));
    note_barred(search, folder);
    return false;
}

/* Workers and checks run as another user than who wrote the path. */
static int say_barred(const char *barred, struct error *error)
{
    error_under(error, "user %u may not enter %s", geteuid(), barred);
    return error_next(error, "chmod o+x %s, or install the plugin where everybody may read", barred);
}

/* A path, as written. */
static int find_path(struct plugin *self, const char *path, struct error *error)
{
    char barred[PATH_MAX];

    if (strlen(path) >= sizeof self->path)
        return error_set(error, -ENAMETOOLONG, "the path of plugin %.64s... is too long", path);
    strcpy(self->path, path);
    if (is_file(self->path))
        return 0;
    error_set(error, -ENOENT, "there is no plugin file %s", path);
    find_barred(barred, path);
    if (barred[0] != '\0')
        return say_barred(barred, error);
    return error_next(error, "correct the path, or write a plugin's name to search plugin_path for it");
}

static int find_file(struct plugin *self, const char *name, const char *const *path, uint32_t path_count, bool root,
                     struct error *error)
{
    struct search search = {.name = name, .path = self->path, .size = sizeof self->path, .root = root};

    if (strchr(name, '/') != NULL)
        return find_path(self, name, error);
    if (search_environment(&search) || search_build_tree(&search))
        return 0;
    for (uint32_t i = 0; i < path_count; i++)
        if (search_folder(&search, path[i], (int)strlen(path[i])))
            return 0;
    error_set(error, -ENOENT, "there is no plugin %s in %s", name,
              search.searched[0] != '\0' ? search.searched : "an empty plugin_path");
    if (search.barred[0] != '\0')
        return say_barred(search.barred, error);
    return error_next(error, "`homeport plugins` lists what is there; install %s/%s.so, or write its path", name, name);
}

static int refuse_writable(const char *path, struct error *error)
{
    struct stat file;

    if (stat(path, &file) < 0)
        return error_set(error, -errno, "cannot look at %s: %s", path, strerror(errno));
    if ((file.st_mode & (S_IWGRP | S_IWOTH)) == 0)
        return 0;
    error_set(error, -EPERM, "%s can be written by others, and root would run what they write", path);
    return error_next(error, "chmod go-w %s", path);
}

/* Whoever can write the file or its folder decides what root runs. */
static int check_safe(const char *path, struct error *error)
{
    char real[PATH_MAX];
    int status;

    if (realpath(path, real) == NULL)
        return error_set(error, -errno, "cannot look at %s: %s", path, strerror(errno));
    status = refuse_writable(real, error);
    return status < 0 ? status : refuse_writable(dirname(real), error);
}

/* The linker's text without the path that we say ourselves. */
static const char *linker_text(const char *path)
{
    const char *text = dlerror();
    size_t length = strlen(path);

    if (text == NULL)
        return "no reason given";
    if (strncmp(text, path, length) == 0 && strncmp(text + length, ": ", 2) == 0)
        text += length + 2;
    /* Said of a file that is there: the linker passes over what is built for another machine. */
    return strncmp(text, "cannot open shared object file: No such file", 44) == 0 ? "built for another machine" : text;
}

/* Before it is opened: a replacement at this very moment is taken for one that is still to come. */
static uint64_t file_number(const char *path)
{
    struct stat file;
    uint64_t parts[5];

    if (stat(path, &file) < 0)
        return 0;
    parts[0] = file.st_dev;
    parts[1] = file.st_ino;
    parts[2] = (uint64_t)file.st_size;
    parts[3] = (uint64_t)file.st_mtim.tv_sec;
    parts[4] = (uint64_t)file.st_mtim.tv_nsec;
    return hash_64(file_key, parts, sizeof parts);
}

static int open_file(void **out, const char *path, struct error *error)
{
    const char *text;

    /* A path without a slash would make the linker search folders of its own. */
    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*out != NULL)
        return 0;
    text = linker_text(path);
    error_set(error, -ENOEXEC, "cannot load plugin %s: %s", path, text);
    if (access(path, R_OK) < 0)
        return error_next(error, "user %u has to read it: chmod o+r %s", geteuid(), path);
    if (strstr(text, "undefined symbol") != NULL)
        return error_next(error, "a plugin must contain all that it calls: link it with -Wl,-z,defs to see what lacks");
    return error_next(error, "build it as a shared object for this machine, against homeport's sdk/");
}

/* Names the major that the file was built for, where it has one that we do not speak. */
static int no_symbol(void *handle, const char *path, struct error *error)
{
    for (unsigned major = 2; major <= 9; major++) {
        char symbol[] = "hp_plugin_v0";

        symbol[sizeof symbol - 2] = (char)('0' + major);
        if (dlsym(handle, symbol) == NULL)
            continue;
        error_set(error, -ENOEXEC, "plugin %s was built for plugin ABI %u, this homeport speaks %u", path, major,
                  HP_ABI_MAJOR);
        return error_next(error, "install the build of this plugin for ABI %u, or a homeport that speaks %u",
                          HP_ABI_MAJOR, major);
    }
    error_set(error, -ENOEXEC, "%s is not a homeport plugin (no hp_plugin_v1)", path);
    return error_next(error, "export `const struct hp_plugin hp_plugin_v1` as <homeport/plugin.h> says");
}

static int find_descriptor(const void **out, size_t *size, void *handle, const char *path, struct error *error)
{
    const ElfW(Sym) *symbol = NULL;
    Dl_info info;

    *out = dlsym(handle, "hp_plugin_v1");
    if (*out == NULL)
        return no_symbol(handle, path, error);
    /* The symbol's own size: a foreign file's hp_plugin_v1 may be anything, of any length. */
    if (dladdr1(*out, &info, (void **)&symbol, RTLD_DL_SYMENT) == 0 || symbol == NULL)
        return error_set(error, -ENOEXEC, "plugin %s: damaged descriptor: hp_plugin_v1 lies nowhere", path);
    *size = symbol->st_size;
    return 0;
}

int plugin_load(struct plugin **out, const char *name, const char *const *path, uint32_t path_count, bool root,
                struct error *error)
{
    struct plugin *self = calloc(1, sizeof *self);
    const void *descriptor = NULL;
    void *handle = NULL;
    size_t size = 0;
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for plugin %s", name);
    status = find_file(self, name, path, path_count, root, error);
    if (status == 0 && root)
        status = check_safe(self->path, error);
    self->file = file_number(self->path);
    if (status == 0)
        status = open_file(&handle, self->path, error);
    if (status == 0)
        status = find_descriptor(&descriptor, &size, handle, self->path, error);
    if (status == 0)
        status = plugin_negotiate(self, descriptor, size, error);
    if (status < 0) {
        free(self);
        return status;
    }
    *out = self;
    return 0;
}

void plugin_free(struct plugin *plugin)
{
    free(plugin);
}
