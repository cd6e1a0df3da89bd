/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Shadow mode, see shadow.h. The switches are bits of a word that other threads change too (orders open, watch), so each change is one atomic
 * operation. Called by the routes of limits, status and stats, by metrics and at start.
 */
#include "daemon/shadow.h"

#include "common/log.h"

const char *shadow_name(unsigned which)
{
	switch (which) {
	case SHADOW_PACE:
		return "pace";
	case SHADOW_DENY:
		return "deny";
	case SHADOW_ALL:
		return "all";
	default:
		return config_limit_name((enum sluice_limit_id)which);
	}
}

uint32_t shadow_flag(unsigned which)
{
	switch (which) {
	case SHADOW_PACE:
		return SLUICE_CONTROL_SHADOW_PACE;
	case SHADOW_DENY:
		return SLUICE_CONTROL_SHADOW_DENY;
	case SHADOW_ALL:
		return SLUICE_CONTROL_SHADOW_ALL;
	default:
		return SLUICE_CONTROL_SHADOW_LIMIT(which);
	}
}

static uint32_t all_switches(void)
{
	uint32_t flags = 0;

	for (unsigned i = 0; i < SHADOW_SWITCHES; i++)
		flags |= shadow_flag(i);
	return flags;
}

uint32_t shadow_flags(const struct daemon *d)
{
	return __atomic_load_n(&d->maps.control->flags, __ATOMIC_ACQUIRE) & all_switches();
}

const char *shadow_mode(uint32_t flags)
{
	if (flags & SLUICE_CONTROL_SHADOW_ALL)
		return "all";
	return flags & all_switches() ? "some" : "off";
}

static void log_switch(unsigned which, bool on)
{
	if (which == SHADOW_ALL && on)
		log_warn(
			"THE WHOLE GATE IS IN SHADOW MODE: it refuses nobody and only counts what it would have refused "
			"(sluice limit shadow all off)");
	else if (which == SHADOW_ALL)
		log_info("the whole gate has left shadow mode: its refusals are real again");
	else if (on)
		log_warn("limit \"%s\" is in shadow mode: what is over it passes, and is only counted",
			shadow_name(which));
	else
		log_info("limit \"%s\" has left shadow mode: it refuses again", shadow_name(which));
}

void shadow_change(struct daemon *d, uint32_t on, uint32_t off)
{
	uint32_t *flags = &d->maps.control->flags;
	uint32_t was_off = ~__atomic_fetch_or(flags, on, __ATOMIC_SEQ_CST) & on;
	uint32_t was_on = __atomic_fetch_and(flags, ~off, __ATOMIC_SEQ_CST) & off;

	for (unsigned i = 0; i < SHADOW_SWITCHES; i++)
		if ((was_off | was_on) & shadow_flag(i))
			log_switch(i, was_off & shadow_flag(i));
}

void shadow_log(struct daemon *d)
{
	uint32_t flags = shadow_flags(d);

	for (unsigned i = 0; i < SHADOW_SWITCHES; i++)
		if (flags & shadow_flag(i))
			log_switch(i, true);
}

json_t *shadow_counts(const struct daemon *d)
{
	__u64 counts[SLUICE_REASON_ROWS];
	json_t *json;

	if (gate_maps_read_shadow(&d->maps, counts))
		return NULL;
	json = json_object();
	for (unsigned reason = 0; reason < SLUICE_REASON_COUNT; reason++)
		if (counts[reason])
			json_object_set_new(json, reason_label(reason), json_integer((json_int_t)counts[reason]));
	return json;
}
