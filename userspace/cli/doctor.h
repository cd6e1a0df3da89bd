/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* `sluice doctor`: what is wrong with this machine, or slow, before the night of the sale. doctor.c is the command; each of the others looks at one thing
 * and notes what it finds. Nothing but the measurement of the pace changes anything, and that cleans up after itself.
 */
#ifndef SLUICE_CLI_DOCTOR_H
#define SLUICE_CLI_DOCTOR_H

#include <jansson.h>
#include <linux/bpf.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/driver.h"
#include "common/config.h"

enum doctor_result { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

/* What was measured; 0 = was not. */
struct doctor_pace {
	double sync_p50_ms, sync_p99_ms;     /* 4 KiB appended and fdatasync */
	double commit_p50_ms, commit_p99_ms; /* one order through a writer, with nothing else on its way */
	uint64_t orders_per_second;          /* in whole batches, two on their way */
	uint64_t safe_per_second;            /* DOCTOR_SAFE_PERCENT of that, rounded down to two digits */
};
/* The rest is for whatever else the machine does in that second: HTTP, the gate, a slow moment of the disk. */
#define DOCTOR_SAFE_PERCENT 50
#define DOCTOR_HOW \
	"a writer of its own with a ledger beside the real one: whole batches, two on their way, for one second; the safe pace is half of that"

struct doctor {
	const struct config *config;
	const char *config_path; /* "" = none was read */
	const char *interface;   /* NULL = those of the gate */
	bool attached;           /* a gate is pinned */
	bool may_bpf;            /* this process may ask the kernel about BPF */
	bool other_store;        /* the writer's ledger is no file */
	json_t *findings;
	unsigned failed, warned;
	struct doctor_pace pace;
};

/* Notes a finding: what was looked at ("kernel"), and what it is. `todo` may be NULL. */
void doctor_note(struct doctor *doctor, enum doctor_result result, const char *check, const char *todo,
	const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Notes the lines that cli_say has put into `said`, each as a finding; if it is empty, `fine` as DOCTOR_OK. */
void doctor_note_said(
	struct doctor *doctor, enum doctor_result result, const char *check, const char *said, const char *fine);

/* A number under /proc/sys of this network namespace; -1 if it cannot be read. */
long doctor_read_sysctl(const char *path);

void doctor_look_at_kernel(struct doctor *doctor);     /* doctor_machine.c */
void doctor_look_at_sysctls(struct doctor *doctor);    /* doctor_machine.c */
void doctor_look_at_clock(struct doctor *doctor);      /* doctor_machine.c */
void doctor_look_at_interfaces(struct doctor *doctor); /* doctor_interface.c */
void doctor_look_at_gate(struct doctor *doctor);       /* doctor_gate.c: after the interfaces */
void doctor_look_at_files(struct doctor *doctor);      /* doctor_files.c */
void doctor_look_at_disk(struct doctor *doctor);       /* doctor_files.c */
void doctor_look_at_programs(struct doctor *doctor);   /* doctor_programs.c */
void doctor_look_at_sales(struct doctor *doctor);      /* doctor_programs.c: once the pace is known */
void doctor_measure_pace(struct doctor *doctor);       /* doctor_pace.c */

/* The XDP program on an interface. */
struct doctor_xdp {
	unsigned mode; /* XDP_ATTACHED_… of linux/if_link.h */
	unsigned program_id;
	char program_name[BPF_OBJ_NAME_LEN];
	bool is_pinned;     /* our pins say that the gate is there */
	bool is_gate;       /* and so it is */
	bool is_other_gate; /* it is one, of other pins */
};
void doctor_note_xdp(struct doctor *doctor, const char *name, const struct doctor_xdp *xdp);
/* Answers of the gate that an interface's driver has dropped. */
void doctor_note_driver(struct doctor *doctor, const char *name, const struct driver *driver);
/* The services of a gate: against what the shop listens on, the machine's addresses (`is_here`), and the config. */
void doctor_judge_services(struct doctor *doctor, const struct sluice_service *services, unsigned count,
	bool (*is_here)(const struct sluice_addr *addr));
/* Shadow mode, of the flags in the control word. */
void doctor_look_at_shadow(struct doctor *doctor, uint32_t flags);

/* What the safe pace of a measured throughput is. */
uint64_t doctor_safe_pace(uint64_t orders_per_second);
/* The value at `percent` of `count` sorted values, by nearest rank; 0 of none. */
double doctor_percentile(const double *sorted, size_t count, unsigned percent);

int cmd_doctor(int argc, char **argv);

#endif
