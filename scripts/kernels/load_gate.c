/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Loads the gate with its default map sizes and prints what the running kernel's verifier says of each program:
 *
 *	NAME verified_instructions N verify_us N stack TEXT
 *
 * and the time of the whole load (maps, verification, JIT): `object load_us N`. Run inside the guests of `make kernels`. Exits 1, with the
 * verifier's last words on stderr, if the gate does not load.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/timefmt.h"
#include "gate.skel.h"

#define LOG_LEVEL_STATS 4
#define LOG_BYTES (1 << 20)
#define LAST_WORDS_BYTES 3000

struct program_log {
	struct bpf_program *program;
	char *text;
};

static int watch(struct program_log *log, struct bpf_program *program)
{
	log->program = program;
	log->text = calloc(1, LOG_BYTES);
	if (!log->text)
		return -ENOMEM;
	bpf_program__set_log_level(program, LOG_LEVEL_STATS);
	return bpf_program__set_log_buf(program, log->text, LOG_BYTES);
}

/* The verifier's statistics: "verification time 1234 usec", "stack depth 400+96+0". */
static void print_program(const struct program_log *log)
{
	const char *time = strstr(log->text, "verification time "), *stack = strstr(log->text, "stack depth ");
	struct bpf_prog_info info = {0};
	__u32 length = sizeof(info);
	unsigned long us = 0;
	char depth[64] = "?";

	if (time)
		us = strtoul(time + strlen("verification time "), NULL, 10);
	if (stack)
		snprintf(depth, sizeof(depth), "%.*s", (int)strcspn(stack + 12, "\n"), stack + 12);
	bpf_obj_get_info_by_fd(bpf_program__fd(log->program), &info, &length);
	printf("%s verified_instructions %u verify_us %lu stack %s\n", bpf_program__name(log->program),
		info.verified_insns, us, depth);
}

static void print_last_words(const struct program_log *log)
{
	size_t length = strlen(log->text);

	fprintf(stderr, "%s:\n%s\n", bpf_program__name(log->program),
		log->text + (length > LAST_WORDS_BYTES ? length - LAST_WORDS_BYTES : 0));
}

int main(void)
{
	struct gate_bpf *skeleton = gate_bpf__open();
	struct program_log logs[2] = {0};
	uint64_t began;
	int err;

	if (!skeleton) {
		perror("cannot open the gate's object");
		return 1;
	}
	err = watch(&logs[0], skeleton->progs.sluice_gate);
	if (!err)
		err = watch(&logs[1], skeleton->progs.sluice_door);
	if (err) {
		fprintf(stderr, "cannot keep the verifier's log: %s\n", strerror(-err));
		goto out_free;
	}
	began = time_mono_ns();
	err = gate_bpf__load(skeleton);
	for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]); i++) {
		if (err)
			print_last_words(&logs[i]);
		else
			print_program(&logs[i]);
	}
	if (err)
		fprintf(stderr, "the gate does not load: %s\n", strerror(-err));
	else
		printf("object load_us %llu\n", (unsigned long long)((time_mono_ns() - began) / 1000));
out_free:
	gate_bpf__destroy(skeleton);
	for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]); i++)
		free(logs[i].text);
	return err ? 1 : 0;
}
