/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Kernel, sysctls and clock; see doctor.h. */
#include <stdio.h>
#include <string.h>
#include <sys/timex.h>
#include <sys/utsname.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/preflight.h"

#define SOMAXCONN_MIN 1024
#define SAID_MAX 4096
#define US_PER_MS 1000

long doctor_read_sysctl(const char *path)
{
	FILE *file = fopen(path, "re");
	long value = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

void doctor_look_at_kernel(struct doctor *doctor)
{
	struct utsname kernel = {0};
	char said[SAID_MAX], fine[128];
	long jit = doctor_read_sysctl("/proc/sys/net/core/bpf_jit_enable");

	cli_say_into(said, sizeof(said));
	doctor->may_bpf = preflight_privilege() == CLI_OK;
	cli_say_into(NULL, 0);
	doctor_note_said(doctor, DOCTOR_FAIL, "privilege", said, "this process may load BPF programs");
	uname(&kernel);
	if (!doctor->may_bpf) {
		doctor_note(doctor, DOCTOR_WARN, "kernel", "run this as root",
			"Linux %s: whether it has what the gate needs cannot be asked without privileges",
			kernel.release);
		return;
	}
	cli_say_into(said, sizeof(said));
	preflight_kernel();
	cli_say_into(NULL, 0);
	snprintf(fine, sizeof(fine), "Linux %.60s has every program type, map and helper that the gate needs",
		kernel.release);
	doctor_note_said(doctor, DOCTOR_FAIL, "kernel", said, fine);
	if (jit == 0)
		doctor_note(doctor, DOCTOR_WARN, "kernel", "sysctl -w net.core.bpf_jit_enable=1",
			"BPF programs are interpreted, which makes the gate several times slower");
}

/* The rules of a firewall cannot be judged from here, but what conntrack makes of connections that it did not see begin can: of those of protected
 * ports it sees neither SYN nor SYN-ACK.
 */
static void look_at_conntrack(struct doctor *doctor)
{
	if (doctor_read_sysctl("/proc/sys/net/netfilter/nf_conntrack_tcp_loose") == 0)
		doctor_note(doctor, DOCTOR_WARN, "firewall",
			"sysctl -w net.netfilter.nf_conntrack_tcp_loose=1, or do not track the protected ports (operations.md, Firewall)",
			"net.netfilter.nf_conntrack_tcp_loose is 0: to a firewall every order is invalid, and it may drop orders that have their unit");
}

void doctor_look_at_sysctls(struct doctor *doctor)
{
	long somaxconn = doctor_read_sysctl("/proc/sys/net/core/somaxconn");
	char said[SAID_MAX];
	bool changed;
	int before;

	cli_say_into(said, sizeof(said));
	preflight_syncookies(false, &changed, &before);
	cli_say_into(NULL, 0);
	doctor_note_said(doctor, DOCTOR_FAIL, "tcp_syncookies", said, "net.ipv4.tcp_syncookies is 2");
	if (somaxconn < 0)
		doctor_note(doctor, DOCTOR_WARN, "somaxconn", NULL, "net.core.somaxconn cannot be read");
	else if (somaxconn < SOMAXCONN_MIN)
		doctor_note(doctor, DOCTOR_WARN, "somaxconn", "sysctl -w net.core.somaxconn=16384, and restart sluiced",
			"net.core.somaxconn is %ld: a rush of admitted buyers overflows the daemon's accept queue",
			somaxconn);
	else
		doctor_note(doctor, DOCTOR_OK, "somaxconn", NULL, "net.core.somaxconn is %ld", somaxconn);
	look_at_conntrack(doctor);
}

/* Windows and expiries are wall clock: one that nobody sets is wrong by minutes after some months. */
void doctor_look_at_clock(struct doctor *doctor)
{
	struct timex clock = {0};
	int state = adjtimex(&clock);

	if (state < 0)
		doctor_note(doctor, DOCTOR_WARN, "clock", NULL,
			"the kernel does not tell whether the clock is synchronised");
	else if (state == TIME_ERROR || (clock.status & STA_UNSYNC))
		doctor_note(doctor, DOCTOR_WARN, "clock", "run chrony, ntpd or systemd-timesyncd",
			"the clock is not synchronised: the sale opens when this machine thinks it is time");
	else
		doctor_note(doctor, DOCTOR_OK, "clock", NULL, "synchronised, at most %ld ms off",
			clock.maxerror / US_PER_MS);
}
