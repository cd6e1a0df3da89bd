/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the gate runs with, whatever the config says: shadow mode; see doctor.h. */
#include <string.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/gate_look.h"
#include "cli/pins.h"

#define SAID_MAX 1024

void doctor_look_at_shadow(struct doctor *doctor, uint32_t flags)
{
	const char *mode = gate_shadow_mode(flags);

	if (!strcmp(mode, "all"))
		doctor_note(doctor, DOCTOR_WARN, "shadow", "sluice limit shadow all off",
			"THE WHOLE GATE IS IN SHADOW MODE: it refuses nobody");
	else if (!strcmp(mode, "some"))
		doctor_note(doctor, DOCTOR_WARN, "shadow", "sluice limit show names them",
			"some limits are in shadow mode: what is over them passes");
}

void doctor_look_at_gate(struct doctor *doctor)
{
	struct sluice_control *control = NULL;
	struct pins pins;
	char said[SAID_MAX];
	int code;

	if (!doctor->attached || !doctor->may_bpf)
		return;
	cli_say_into(said, sizeof(said));
	code = pins_init(&pins, doctor->config->gate.pin_dir);
	if (!code)
		code = pins_map_control(&pins, &control);
	cli_say_into(NULL, 0);
	if (code) {
		doctor_note_said(doctor, DOCTOR_FAIL, "gate", said, "");
		return;
	}
	doctor_look_at_shadow(doctor, __atomic_load_n(&control->flags, __ATOMIC_RELAXED));
	pins_unmap_control(control);
}
