/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The gate under test; see gate.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "common/answers.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "gate.h"
#include "gate.skel.h"

static void die(const char *what)
{
	fprintf(stderr, "cannot test the gate: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void enter_namespace(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (unshare(CLONE_NEWNET))
		die("a new network namespace (root is needed)");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
		die("loopback up");
	close(fd);
	fd = open("/proc/sys/net/ipv4/tcp_syncookies", O_WRONLY);
	if (fd < 0 || write(fd, "2", 1) != 1)
		die("net.ipv4.tcp_syncookies = 2");
	close(fd);
}

static int listen_on(unsigned port)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0, on = 1;

	if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) ||
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
		bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 128))
		die("a listener");
	return fd;
}

static void *map_words(struct bpf_map *map, size_t size)
{
	void *words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);

	if (words == MAP_FAILED)
		die("mmap of a map");
	return words;
}

static void add_service(struct gate *gate, unsigned index, unsigned port, unsigned kind)
{
	struct sluice_service service = {.port = port, .kind = kind};
	__u64 bits = 1ULL << index;
	__u32 key = port;

	snprintf(service.name, sizeof(service.name), "test%u", index);
	if (bpf_map_update_elem(bpf_map__fd(gate->skel->maps.services), &index, &service, 0) ||
		bpf_map_update_elem(bpf_map__fd(gate->skel->maps.ports), &key, &bits, 0))
		die("a service");
}

void gate_alive(struct gate *gate)
{
	gate->control->wall_offset_ns = time_wall_ns() - time_mono_ns();
	__atomic_store_n(&gate->control->heartbeat_mono, time_mono_ns(), __ATOMIC_SEQ_CST);
}

static void fill(struct gate *gate)
{
	uint64_t now = time_wall_ns();

	gate->control->magic = SLUICE_ABI_MAGIC;
	gate->control->abi_version = SLUICE_ABI_VERSION;
	gate->control->flags = SLUICE_CONTROL_ORDERS_OPEN;
	gate->control->grow = SLUICE_GROW_HEAD | SLUICE_GROW_TAIL;
	gate->control->mss4 = 1460;
	gate->control->mss6 = 1440;
	gate_alive(gate);
	gate->sales[GATE_SALE] = (struct sluice_sale){
		.id = GATE_SALE, .opens_wall = now - 1000000000ULL, .ends_wall = now + 3600 * 1000000000ULL, .per_buyer = 1};
	gate->stock[GATE_SALE].free = 10;
	gate->keys[1] = (struct sluice_key){.k0 = 0x0706050403020100ULL, .k1 = 0x0f0e0d0c0b0a0908ULL, .id = 1, .valid = 1};
	if (answers_write_defaults(bpf_map__fd(gate->skel->maps.answers), ""))
		die("answers");
}

void gate_open(struct gate *gate, const struct gate_sizes *sizes)
{
	static const struct gate_sizes small;
	struct gate_bpf *skel;

	memset(gate, 0, sizeof(*gate));
	if (!sizes)
		sizes = &small;
	enter_namespace();
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	skel = gate_bpf__open();
	if (!skel)
		die("the skeleton");
	bpf_map__set_max_entries(skel->maps.admissions, sizes->admissions ? sizes->admissions : 4096);
	bpf_map__set_max_entries(skel->maps.buyers, sizes->buyers ? sizes->buyers : 4096);
	bpf_map__set_max_entries(skel->maps.issued, 64);
	bpf_map__set_max_entries(skel->maps.ring, sizes->ring_bytes ? sizes->ring_bytes : 1 << 20);
	bpf_map__set_max_entries(skel->maps.rates, sizes->rates ? sizes->rates : 16384);
	bpf_map__set_max_entries(skel->maps.lists, sizes->lists ? sizes->lists : 4096);
	if (gate_bpf__load(skel))
		die("loading the gate");
	gate->skel = skel;
	gate->prog = bpf_program__fd(skel->progs.sluice_gate);
	gate->door = bpf_program__fd(skel->progs.sluice_door);
	gate->control = map_words(skel->maps.control, sizeof(struct sluice_control));
	gate->sales = map_words(skel->maps.sales, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	gate->stock = map_words(skel->maps.stock, SLUICE_MAX_SALES * sizeof(struct sluice_stock));
	gate->keys = map_words(skel->maps.keys, 2 * sizeof(struct sluice_key));
	add_service(gate, 0, GATE_PORT, SLUICE_SERVICE_SALE);
	add_service(gate, 1, GATE_TCP_PORT, SLUICE_SERVICE_TCP);
	add_service(gate, 2, GATE_DEAD_PORT, SLUICE_SERVICE_SALE);
	gate->listeners[0] = listen_on(GATE_PORT);
	gate->listeners[1] = listen_on(GATE_TCP_PORT);
	fill(gate);
}

void gate_close(struct gate *gate)
{
	close(gate->listeners[0]);
	close(gate->listeners[1]);
	munmap(gate->control, sizeof(struct sluice_control));
	munmap(gate->sales, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	munmap(gate->stock, SLUICE_MAX_SALES * sizeof(struct sluice_stock));
	munmap(gate->keys, 2 * sizeof(struct sluice_key));
	gate_bpf__destroy(gate->skel);
}

#define COUNTER_ROWS ((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS)

static void read_counters(struct gate *gate, uint64_t *packets)
{
	int cpus = libbpf_num_possible_cpus();
	struct sluice_counter *values = calloc(cpus, sizeof(*values));

	for (__u32 row = 0; row < COUNTER_ROWS; row++) {
		packets[row] = 0;
		if (bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.counters), &row, values))
			die("counters");
		for (int cpu = 0; cpu < cpus; cpu++)
			packets[row] += values[cpu].packets;
	}
	free(values);
}

void gate_run(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run)
{
	static uint64_t before[COUNTER_ROWS], after[COUNTER_ROWS];
	int changed = 0;
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = length, .data_out = run->bytes,
		.data_size_out = sizeof(run->bytes));

	read_counters(gate, before);
	if (bpf_prog_test_run_opts(gate->prog, &opts))
		die("BPF_PROG_TEST_RUN");
	read_counters(gate, after);
	run->action = opts.retval;
	run->length = opts.data_size_out;
	run->reason = run->service = -1;
	for (int row = 0; row < COUNTER_ROWS; row++) {
		if (after[row] == before[row])
			continue;
		changed += after[row] - before[row];
		run->reason = row % SLUICE_REASON_ROWS;
		run->service = row / SLUICE_REASON_ROWS;
	}
	if (changed != 1)
		run->reason = -1;
	memset(&run->parsed, 0, sizeof(run->parsed));
	if (run->action == 3 /* XDP_TX */)
		run->parsed = frame_parse(run->bytes, run->length);
}

void gate_run_frame(struct gate *gate, const struct frame *frame, struct run *run)
{
	uint8_t bytes[FRAME_MAX];

	gate_run(gate, bytes, frame_write(frame, bytes), run);
}

int gate_handshake(struct gate *gate, struct frame *frame, const void *payload, unsigned length)
{
	struct run run;

	frame->flags = F_SYN;
	frame->payload_len = 0;
	gate_run_frame(gate, frame, &run);
	if (run.reason != SLUICE_REASON_SYN_COOKIE)
		return -1;
	frame->flags = F_ACK | F_PSH;
	frame->ack = run.parsed.seq + 1;
	frame->seq += 1;
	frame->tcp_option_bytes = 0;
	frame->payload = payload;
	frame->payload_len = length;
	return 0;
}

void gate_call(struct gate *gate, struct sluice_call *call)
{
	/* For a syscall program the kernel copies the context back to where it came from. */
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = call, .ctx_size_in = sizeof(*call));

	if (bpf_prog_test_run_opts(gate->door, &opts))
		die("the call door");
}

struct sluice_token gate_token(uint64_t serial, uint64_t buyer)
{
	uint32_t now_s = time_wall_ns() / 1000000000ULL;
	struct sluice_token token = {.version = SLUICE_TOKEN_VERSION,
		.key_id = 1,
		.quantity = 1,
		.sale = GATE_SALE,
		.issued_at_s = now_s,
		.expires_at_s = now_s + 3600,
		.buyer = buyer,
		.serial = serial};

	return token;
}

void gate_token_text(struct gate *gate, struct sluice_token *token, char *text)
{
	token->mac = sluice_token_mac(token, gate->keys[token->key_id & 1].k0, gate->keys[token->key_id & 1].k1);
	base64url_encode((const __u8 *)token, sizeof(*token), text);
}

unsigned gate_order_request(const char *token, char *out, unsigned size)
{
	return snprintf(out, size, "POST /v1/orders/%s HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
		token);
}

void gate_order(struct gate *gate, bool ip6, uint16_t sport, const char *token, struct run *run)
{
	struct frame frame = frame_syn(ip6);
	char request[512];

	frame.sport = sport;
	memset(run, 0, sizeof(*run));
	run->reason = -1;
	if (!gate_handshake(gate, &frame, request, gate_order_request(token, request, sizeof(request))))
		gate_run_frame(gate, &frame, run);
}

unsigned gate_map_count(int fd, unsigned key_size)
{
	uint8_t key[64], next[64];
	unsigned count = 0;
	int err = bpf_map_get_next_key(fd, NULL, next);

	while (!err) {
		count++;
		memcpy(key, next, key_size);
		err = bpf_map_get_next_key(fd, key, next);
	}
	return count;
}

bool gate_is_conserved(struct gate *gate, unsigned put_in)
{
	int admissions = bpf_map__fd(gate->skel->maps.admissions), buyers = bpf_map__fd(gate->skel->maps.buyers);
	uint64_t free_units = gate->stock[GATE_SALE].free, admitted = 0, counted = 0;
	struct sluice_buyer_key buyer_key;
	struct sluice_admission admission;
	struct sluice_buyer buyer;
	bool whole = true;
	__u64 serial;
	int err;

	for (err = bpf_map_get_next_key(admissions, NULL, &serial); !err;
		err = bpf_map_get_next_key(admissions, &serial, &serial)) {
		if (bpf_map_lookup_elem(admissions, &serial, &admission))
			continue;
		if (admission.state != SLUICE_ADMISSION_DONE) {
			fprintf(stderr, "admission %llx is left half-done\n", (unsigned long long)serial);
			whole = false;
		}
		admitted += admission.quantity;
	}
	for (err = bpf_map_get_next_key(buyers, NULL, &buyer_key); !err;
		err = bpf_map_get_next_key(buyers, &buyer_key, &buyer_key)) {
		if (!bpf_map_lookup_elem(buyers, &buyer_key, &buyer))
			counted += buyer.units;
	}
	if (free_units + admitted != put_in || counted != admitted || gate->stock[GATE_SALE].taken != admitted) {
		fprintf(stderr, "put in %u, free %llu, admitted %llu, counted for buyers %llu, taken %llu\n", put_in,
			(unsigned long long)free_units, (unsigned long long)admitted, (unsigned long long)counted,
			(unsigned long long)gate->stock[GATE_SALE].taken);
		whole = false;
	}
	return whole;
}
