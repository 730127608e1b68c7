/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/child.h"

#include "process/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOING_SIZE 128u

static json_t *error_object(const struct error *error)
{
    return json_pack("{s:s, s:s}", "error", error->what, "next", error->next);
}

/* The child's side; does not return. */
static void child_main(json_t *(*work)(void *arg, char *doing, struct error *error), void *arg, char *doing, int out,
                       pid_t parent)
{
    struct error error = {0};
    json_t *result = NULL;
    FILE *stream = fdopen(out, "w");

    dup2(STDERR_FILENO, STDOUT_FILENO); /* what a plugin prints is not our answer */
    if (sandbox_enter_nobody(parent, &error) == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(CHILD_LIMIT_S);
        result = work(arg, doing, &error);
    }
    if (result == NULL)
        result = error_object(&error);
    if (stream == NULL || json_dumpf(result, stream, JSON_COMPACT) < 0 || fclose(stream) != 0)
        _exit(1);
    _exit(0); /* no destructor of foreign code, no leak check over what it keeps */
}

static int judge(json_t **out, json_t *result, int status, const char *doing, struct error *error)
{
    const char *what = json_string_value(json_object_get(result, "error"));
    const char *next = json_string_value(json_object_get(result, "next"));

    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        error_set(error, -ETIMEDOUT, "%s: it did not return within %u s", doing, CHILD_LIMIT_S);
    else if (WIFSIGNALED(status))
        error_set(error, -EFAULT, "%s: it crashed (%s)", doing, strsignal(WTERMSIG(status)));
    else if (result == NULL)
        error_set(error, -EPROTO, "%s: it ended the process (status %d)", doing, WEXITSTATUS(status));
    else if (what != NULL)
        error_set(error, -EINVAL, "%s", what);
    else {
        *out = result;
        return 0;
    }
    if (what != NULL && next != NULL && next[0] != '\0' && !WIFSIGNALED(status))
        error_next(error, "%s", next);
    json_decref(result);
    return error->code;
}

static int read_child(json_t **out, pid_t pid, int in, const char *doing, struct error *error)
{
    FILE *stream = fdopen(in, "r");
    json_t *result = stream != NULL ? json_loadf(stream, 0, NULL) : NULL;
    char note[DOING_SIZE];
    int status = 0;

    if (stream != NULL)
        fclose(stream);
    else
        close(in);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    snprintf(note, sizeof note, "%.*s", (int)DOING_SIZE - 1, doing);
    return judge(out, result, status, note, error);
}

int child_run(json_t **out, json_t *(*work)(void *arg, char *doing, struct error *error), void *arg,
              struct error *error)
{
    char *doing = mmap(NULL, DOING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid(), pid;
    int ends[2], status;

    if (doing == MAP_FAILED)
        return error_set(error, -ENOMEM, "no memory for a child");
    if (pipe(ends) < 0) {
        munmap(doing, DOING_SIZE);
        return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
    }
    snprintf(doing, DOING_SIZE, "a plugin");
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child_main(work, arg, doing, ends[1], parent);
    }
    close(ends[1]);
    if (pid < 0) {
        status = error_set(error, -errno, "cannot start a child: %s", strerror(errno));
        close(ends[0]);
    } else {
        status = read_child(out, pid, ends[0], doing, error);
    }
    munmap(doing, DOING_SIZE);
    return status;
}
