/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The figures of `sluice doctor`, and the sentences that become its findings. */
#include <linux/if_link.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cli/cli.h"
#include "cli/doctor.h"
#include "common/addr.h"
#include "sluice/abi.h"

static void the_safe_pace_is_half_of_what_was_measured_and_rounded_down(void **state)
{
	(void)state;
	assert_int_equal(doctor_safe_pace(0), 0);
	assert_int_equal(doctor_safe_pace(1), 0);
	assert_int_equal(doctor_safe_pace(199), 99);
	assert_int_equal(doctor_safe_pace(200), 100);
	assert_int_equal(doctor_safe_pace(2019), 1000);
	assert_int_equal(doctor_safe_pace(121609), 60000);
	assert_int_equal(doctor_safe_pace(199999), 99000);
	for (uint64_t n = 1; n < 1000000000; n = n * 3 + 1)
		assert_true(doctor_safe_pace(n) <= n / 2);
}

static void a_percentile_is_a_value_that_was_measured(void **state)
{
	const double values[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 100};

	(void)state;
	assert_true(doctor_percentile(values, 0, 50) == 0);
	assert_true(doctor_percentile(values, 1, 99) == 1);
	assert_true(doctor_percentile(values, 10, 50) == 5);
	assert_true(doctor_percentile(values, 10, 90) == 9);
	assert_true(doctor_percentile(values, 10, 99) == 100);
	assert_true(doctor_percentile(values, 10, 0) == 1);
}

static int begin(void **state)
{
	static struct doctor doctor;

	memset(&doctor, 0, sizeof(doctor));
	doctor.findings = json_array();
	*state = &doctor;
	return 0;
}

static int end(void **state)
{
	cli_say_into(NULL, 0);
	json_decref(((struct doctor *)*state)->findings);
	return 0;
}

static const char *text(const struct doctor *doctor, size_t i, const char *name)
{
	return json_string_value(json_object_get(json_array_get(doctor->findings, i), name));
}

static void each_sentence_becomes_a_finding_and_none_that_all_is_well(void **state)
{
	struct doctor *doctor = *state;
	char said[256];

	cli_say_into(said, sizeof(said));
	doctor_note_said(doctor, DOCTOR_FAIL, "kernel", said, "all there");
	cli_say("no %s", "ring");
	cli_say("no loop\nin two lines");
	doctor_note_said(doctor, DOCTOR_FAIL, "kernel", said, "all there");
	assert_int_equal(json_array_size(doctor->findings), 3);
	assert_string_equal(text(doctor, 0, "result"), "ok");
	assert_string_equal(text(doctor, 0, "what"), "all there");
	assert_string_equal(text(doctor, 1, "result"), "fail");
	assert_string_equal(text(doctor, 1, "what"), "no ring");
	assert_string_equal(text(doctor, 2, "what"), "no loop?in two lines");
	assert_int_equal(doctor->failed, 2);
}

static void a_finding_does_not_say_its_name_twice(void **state)
{
	struct doctor *doctor = *state;

	doctor_note_said(doctor, DOCTOR_FAIL, "daemon", "daemon: no daemon at S\ndaemons differ", "");
	assert_string_equal(text(doctor, 0, "what"), "no daemon at S");
	assert_string_equal(text(doctor, 1, "what"), "daemons differ");
}

static void what_does_not_fit_is_cut(void **state)
{
	char said[16];

	(void)state;
	cli_say_into(said, sizeof(said));
	cli_say("twelve chars");
	cli_say("and more");
	assert_string_equal(said, "twelve chars\nan");
}

static void findings_are_counted_by_what_they_are(void **state)
{
	struct doctor *doctor = *state;

	doctor_note(doctor, DOCTOR_OK, "a", NULL, "fine");
	doctor_note(doctor, DOCTOR_WARN, "b", "do %s", "%d of %s", 1, "two");
	assert_int_equal(doctor->failed, 0);
	assert_int_equal(doctor->warned, 1);
	assert_string_equal(text(doctor, 1, "what"), "1 of two");
	assert_string_equal(text(doctor, 1, "todo"), "do %s");
	assert_string_equal(text(doctor, 0, "todo"), "");
}

static void a_gate_in_shadow_mode_is_a_warning(void **state)
{
	struct doctor *doctor = *state;

	doctor_look_at_shadow(doctor, SLUICE_CONTROL_ORDERS_OPEN | SLUICE_CONTROL_DENY_ALL | SLUICE_CONTROL_WATCH);
	assert_int_equal(json_array_size(doctor->findings), 0);
	doctor_look_at_shadow(doctor, SLUICE_CONTROL_SHADOW_LIMIT(SLUICE_LIMIT_COUNT - 1));
	doctor_look_at_shadow(doctor, SLUICE_CONTROL_SHADOW_DENY);
	doctor_look_at_shadow(doctor, SLUICE_CONTROL_SHADOW_ALL | SLUICE_CONTROL_SHADOW_PACE);
	assert_int_equal(doctor->warned, 3);
	assert_non_null(strstr(text(doctor, 0, "what"), "some limits"));
	assert_non_null(strstr(text(doctor, 1, "what"), "some limits"));
	assert_non_null(strstr(text(doctor, 2, "what"), "WHOLE GATE"));
	assert_string_equal(text(doctor, 2, "todo"), "sluice limit shadow all off");
}

static void only_the_gate_of_these_pins_is_called_the_gate(void **state)
{
	struct doctor *doctor = *state;
	static struct config config = {.gate.pin_dir = "/sys/fs/bpf/mine"};
	struct doctor_xdp xdp = {.mode = XDP_ATTACHED_DRV, .program_id = 7, .program_name = "pass"};

	doctor->config = &config;
	doctor_note_xdp(doctor, "eth0", &xdp);
	assert_string_equal(text(doctor, 0, "result"), "warn");
	assert_non_null(strstr(text(doctor, 0, "what"), "another XDP program, 7 \"pass\""));
	xdp.is_pinned = true;
	doctor_note_xdp(doctor, "eth0", &xdp);
	assert_string_equal(text(doctor, 1, "result"), "fail");
	xdp.is_other_gate = true;
	doctor_note_xdp(doctor, "eth0", &xdp);
	assert_string_equal(text(doctor, 2, "result"), "warn");
	assert_non_null(strstr(text(doctor, 2, "what"), "not the one of /sys/fs/bpf/mine"));
	xdp.is_gate = true;
	doctor_note_xdp(doctor, "eth0", &xdp);
	assert_string_equal(text(doctor, 3, "result"), "ok");
	assert_non_null(strstr(text(doctor, 3, "what"), "runs the gate in native mode"));
}

static bool is_documentation(const struct sluice_addr *addr)
{
	char address[ADDR_TEXT_MAX];

	return !strcmp(addr_format(addr, address), "192.0.2.1");
}

static void judge(struct doctor *doctor, const char *listen, const char *address, unsigned port)
{
	static struct config config;

	config_defaults(&config);
	snprintf(config.daemon.public_listen, sizeof(config.daemon.public_listen), "%s", listen);
	config.services[0].port = (__u16)port;
	if (address)
		assert_int_equal(addr_parse(address, &config.services[0].addr), 0);
	doctor->config = &config;
	json_array_clear(doctor->findings);
	doctor_judge_services(doctor, config.services, config.service_count, is_documentation);
}

static void a_port_of_the_shop_that_the_gate_does_not_protect_fails(void **state)
{
	struct doctor *doctor = *state;
	static const struct {
		const char *listen, *address;
		unsigned port;
	} well[] = {{"[::]:8080", NULL, 8080}, {"0.0.0.0:80", NULL, 80}, {"192.0.2.1:80", "192.0.2.1", 80},
		{"[::]:80", "192.0.2.1", 80}, {"127.0.0.1:8080", NULL, 443}, {"[::1]:8080", NULL, 443}},
	  ill[] = {{"[::]:8080", NULL, 80}, {"192.0.2.7:80", "192.0.2.1", 80}, {"[2001:db8::1]:8080", NULL, 808}};

	for (size_t i = 0; i < sizeof(well) / sizeof(well[0]); i++) {
		judge(doctor, well[i].listen, well[i].address, well[i].port);
		assert_int_equal(json_array_size(doctor->findings), 0);
	}
	for (size_t i = 0; i < sizeof(ill) / sizeof(ill[0]); i++) {
		judge(doctor, ill[i].listen, ill[i].address, ill[i].port);
		assert_int_equal(json_array_size(doctor->findings), 1);
		assert_string_equal(text(doctor, 0, "result"), "fail");
		assert_non_null(strstr(text(doctor, 0, "what"), ill[i].listen));
	}
}

static void a_service_elsewhere_and_a_config_that_has_changed_are_warnings(void **state)
{
	struct doctor *doctor = *state;
	struct sluice_service attached;
	struct config *config;

	judge(doctor, "[::]:8080", "192.0.2.9", 8080);
	assert_int_equal(json_array_size(doctor->findings), 1);
	assert_non_null(strstr(text(doctor, 0, "what"), "is at 192.0.2.9, and this machine has no such address"));
	judge(doctor, "[::]:8080", "192.0.2.1", 8080);
	assert_int_equal(json_array_size(doctor->findings), 0);
	config = (struct config *)(uintptr_t)doctor->config;
	attached = config->services[0];
	config->services[0].kind = SLUICE_SERVICE_TCP;
	doctor_judge_services(doctor, &attached, 1, is_documentation);
	config->service_count = 0;
	doctor_judge_services(doctor, &attached, 1, is_documentation);
	assert_int_equal(json_array_size(doctor->findings), 2);
	assert_non_null(strstr(text(doctor, 1, "what"), "other services than the config"));
	assert_int_equal(doctor->failed, 0);
}

static void answers_that_a_driver_drops_are_a_warning(void **state)
{
	struct doctor *doctor = *state;
	struct driver driver = {.name = "veth"};

	doctor_note_driver(doctor, "eth0", &driver);
	assert_string_equal(text(doctor, 0, "result"), "ok");
	driver.dropped = 56;
	snprintf(driver.counter, sizeof(driver.counter), "rx_queue_0_xdp_tx_errors");
	doctor_note_driver(doctor, "eth0", &driver);
	assert_string_equal(text(doctor, 1, "result"), "warn");
	assert_non_null(strstr(text(doctor, 1, "what"), "rx_queue_0_xdp_tx_errors is 56"));
	snprintf(driver.name, sizeof(driver.name), "mlx5_core");
	doctor_note_driver(doctor, "eth1", &driver);
	assert_null(strstr(text(doctor, 2, "todo"), "peer"));
}

static void counters_of_dropped_answers_are_known_by_their_names(void **state)
{
	static const char *const drops[] = {
		"rx_queue_0_xdp_tx_errors", "rx_xdp_tx_full", "rx0_xdp_tx_err", "tx_xdp_tx_drops"};
	static const char *const others[] = {"rx_queue_0_xdp_tx", "rx_queue_0_xdp_drops", "rx_queue_0_drops",
		"tx_errors", "peer_ifindex", "rx_queue_0_xdp_redirect_errors"};

	(void)state;
	for (size_t i = 0; i < sizeof(drops) / sizeof(drops[0]); i++)
		assert_true(driver_counts_drops(drops[i]));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_false(driver_counts_drops(others[i]));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_safe_pace_is_half_of_what_was_measured_and_rounded_down),
		TEST(a_percentile_is_a_value_that_was_measured),
		TEST(each_sentence_becomes_a_finding_and_none_that_all_is_well),
		TEST(a_finding_does_not_say_its_name_twice),
		TEST(what_does_not_fit_is_cut),
		TEST(findings_are_counted_by_what_they_are),
		TEST(a_gate_in_shadow_mode_is_a_warning),
		TEST(only_the_gate_of_these_pins_is_called_the_gate),
		TEST(answers_that_a_driver_drops_are_a_warning),
		TEST(counters_of_dropped_answers_are_known_by_their_names),
		TEST(a_port_of_the_shop_that_the_gate_does_not_protect_fails),
		TEST(a_service_elsewhere_and_a_config_that_has_changed_are_warnings),
	};

	return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
