/* SPDX-License-Identifier: Apache-2.0 */
/* Happy path: the parent makes a memfd for the plan and one for what the child says, starts the child, and reads both
 * when it has ended with status 0 and a valid plan.
 * Fails: the file is wrong        -> status 1, the findings are in the text
 *        it cannot drop privileges -> status CHECK_NOT_BEGUN: the text says why
 *        a plugin crashes         -> the child dies of a signal; plan->doing says inside what
 *        a plugin calls exit()    -> likewise
 *        a plugin hangs           -> killed after CHECK_LIMIT_MS, plan->doing says inside what
 *        the plan is not credible -> refused: nothing of it is used */
#include "process/check.h"

#include "process/process.h"
#include "process/sandbox.h"
#include "process/source.h"
#include "process/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHECK_LIMIT_MS 20000u
#define CHECK_TEXT (64u << 10)

struct check {
    uv_process_t process;
    uv_timer_t limit;
    struct plan *plan;
    char *text;
    int plan_fd, text_fd;
    bool hung, silent;
    int open_handles;
    check_done done;
    void *arg;
};

pid_t check_pid(const struct check *check)
{
    return check->process.pid;
}

static void check_free(struct check *self)
{
    if (self->plan != NULL)
        munmap(self->plan, sizeof *self->plan);
    close(self->plan_fd);
    close(self->text_fd);
    free(self->text);
    free(self);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct check *self = handle->data;

    if (--self->open_handles == 0)
        check_free(self);
}

static void read_text(struct check *self)
{
    ssize_t size = pread(self->text_fd, self->text, CHECK_TEXT - 1, 0);

    self->text[size > 0 ? size : 0] = '\0';
}

static void judge(struct check *self, struct plan *plan, int64_t status, int number, struct error *error)
{
    plan->doing[sizeof plan->doing - 1] = '\0';
    if (self->hung) {
        error_set(error, -ETIMEDOUT, "the check did not end within %u s%s%s", CHECK_LIMIT_MS / 1000,
                  plan->doing[0] ? ", inside " : "", plan->doing);
    } else if (number != 0) {
        error_set(error, -EFAULT, "the check died by signal %d%s%s", number, plan->doing[0] ? " inside " : "",
                  plan->doing);
    } else if (plan->doing[0] != '\0') {
        error_set(error, -EFAULT, "%s ended the check with status %lld", plan->doing, (long long)status);
    } else if (status == CHECK_NOT_BEGUN) {
        error_set(error, -EPERM, "%s", self->text);
        self->text[0] = '\0'; /* it is no finding */
    } else if (status != 0) {
        error_set(error, -EINVAL, "the configuration has errors");
    } else if (!plan_valid(plan)) {
        error_set(error, -EPROTO, "the check ended without a usable plan");
    }
    if (plan->doing[0] != '\0')
        error_next(error, "that plugin must be mended or taken out of the file");
}

static void on_ended(uv_process_t *process, int64_t status, int number)
{
    struct check *self = process->data;
    struct error error = {0};
    struct plan *plan;

    uv_timer_stop(&self->limit);
    if (self->silent)
        return;
    read_text(self);
    plan = malloc(sizeof *plan);
    if (plan == NULL) {
        error_set(&error, -ENOMEM, "no memory for a plan");
    } else {
        memcpy(plan, self->plan, sizeof *plan); /* what the child has left behind may still write to the original */
        judge(self, plan, status, number, &error);
    }
    self->done(self->arg, error.code == 0 ? plan : NULL, self->text, &error);
    free(plan);
}

static void on_limit(uv_timer_t *timer)
{
    struct check *self = timer->data;

    self->hung = true;
    uv_process_kill(&self->process, SIGKILL);
}

static int prepare(struct check *self, struct error *error)
{
    self->text = malloc(CHECK_TEXT);
    self->plan_fd = memfd_create("plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    self->text_fd = memfd_create("check", MFD_CLOEXEC);
    if (self->text == NULL || self->plan_fd < 0 || self->text_fd < 0 ||
        ftruncate(self->plan_fd, sizeof *self->plan) < 0 ||
        fcntl(self->plan_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set(error, -ENOMEM, "no memory for a check");
    self->plan = mmap(NULL, sizeof *self->plan, PROT_READ | PROT_WRITE, MAP_SHARED, self->plan_fd, 0);
    if (self->plan == MAP_FAILED) {
        self->plan = NULL;
        return error_set(error, -ENOMEM, "no memory for a plan");
    }
    return 0;
}

int check_start(struct check **out, uv_loop_t *loop, int source, const char *path, check_done done, void *arg,
                struct error *error)
{
    char *arguments[] = {"homeport", "_check", (char *)path, NULL};
    struct check *self = calloc(1, sizeof *self);
    int status;

    if (self == NULL)
        return error_set(error, -ENOMEM, "no memory for a check");
    self->plan_fd = self->text_fd = -1;
    self->done = done;
    self->arg = arg;
    status = prepare(self, error);
    if (status < 0) {
        check_free(self);
        return status;
    }
    self->process.data = self->limit.data = self;
    uv_timer_init(loop, &self->limit);
    status =
        spawn_role(loop, &self->process, arguments,
                   (int[SPAWN_DESCRIPTORS]){-1, -1, self->text_fd, self->plan_fd, source, -1, -1, -1}, on_ended, error);
    if (status < 0) {
        self->open_handles = 1;
        uv_close((uv_handle_t *)&self->limit, on_handle_closed);
        if (self->process.type != 0) { /* uv_spawn has got as far as to initialise it */
            self->open_handles = 2;
            uv_close((uv_handle_t *)&self->process, on_handle_closed);
        }
        return status;
    }
    self->open_handles = 2;
    uv_timer_start(&self->limit, on_limit, CHECK_LIMIT_MS, 0);
    *out = self;
    return 0;
}

void check_close(struct check *check)
{
    if (check == NULL)
        return;
    check->silent = true;
    if (uv_is_active((uv_handle_t *)&check->process))
        uv_process_kill(&check->process, SIGKILL);
    uv_close((uv_handle_t *)&check->limit, on_handle_closed);
    uv_close((uv_handle_t *)&check->process, on_handle_closed);
}

struct check_verdict { /* of `homeport check` */
    bool fine;
};

/* Who checks a file may be another than who will run it. */
static void note_capabilities(void)
{
    struct error error = {0};
    char line[768];

    if (sandbox_check_transparent(&error) < 0)
        fprintf(stderr, "homeport check: warning: who checks could not run this: %s\n",
                error_line(&error, line, sizeof line));
}

static void on_verdict(void *arg, const struct plan *plan, const char *text, const struct error *error)
{
    struct check_verdict *verdict = arg;
    char line[768];

    verdict->fine = plan != NULL;
    fputs(text, stderr);
    if (plan != NULL && plan->transparent)
        note_capabilities();
    if (plan == NULL && error->code != -EINVAL)
        fprintf(stderr, "homeport check: %s\n", error_line(error, line, sizeof line));
}

int check_run(const char *path)
{
    struct check_verdict verdict = {false};
    struct error error = {0};
    struct check *check = NULL;
    uv_loop_t loop;
    int source;
    char line[768];

    if (source_read(&source, path, &error) < 0) {
        fprintf(stderr, "homeport check: %s\n", error_line(&error, line, sizeof line));
        return 1;
    }
    uv_loop_init(&loop);
    if (check_start(&check, &loop, source, path, on_verdict, &verdict, &error) < 0)
        fprintf(stderr, "homeport check: %s\n", error_line(&error, line, sizeof line));
    else
        uv_run(&loop, UV_RUN_DEFAULT); /* the child's end; the stopped timer does not hold the loop */
    check_close(check);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    close(source);
    if (verdict.fine)
        printf("%s: no errors\n", path);
    return verdict.fine ? 0 : 1;
}
