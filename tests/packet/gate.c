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

#include "common/addr.h"
#include "common/answers.h"
#include "common/timefmt.h"
#include "common/token.h"
#include "gate.h"
#include "gate.skel.h"

#define CLOCK_READINGS 8
#define TEST_HOURS_NS (3 * 3600 * 1000000000ULL)

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

void gate_add_service(struct gate *gate, unsigned index, const char *address, unsigned port, unsigned kind)
{
	struct sluice_service service = {.port = port, .kind = kind};
	int ports = bpf_map__fd(gate->skel->maps.ports);
	__u32 key = port;
	__u64 bits;

	snprintf(service.name, sizeof(service.name), "test%u", index);
	if (*address && addr_parse(address, &service.addr))
		die("the address of a service");
	if (bpf_map_lookup_elem(ports, &key, &bits))
		die("a port");
	bits |= 1ULL << index;
	if (bpf_map_update_elem(bpf_map__fd(gate->skel->maps.services), &index, &service, 0) ||
		bpf_map_update_elem(ports, &key, &bits, 0))
		die("a service");
}

/* From the closest of some pairs of readings, and rounded so that the gate's wall clock is never behind ours: a test that loses its CPU
 * between two readings would see a sale open later than it asked for.
 */
static uint64_t wall_offset(void)
{
	uint64_t closest = UINT64_MAX, offset = 0;

	for (int i = 0; i < CLOCK_READINGS; i++) {
		uint64_t before = time_mono_ns(), wall = time_wall_ns(), spread = time_mono_ns() - before;

		if (spread < closest) {
			closest = spread;
			offset = wall - before;
		}
	}
	return offset;
}

void gate_alive(struct gate *gate)
{
	gate->control->wall_offset_ns = wall_offset();
	__atomic_store_n(&gate->control->heartbeat_mono, time_mono_ns(), __ATOMIC_SEQ_CST);
}

void gate_limit(struct gate *gate, enum sluice_limit_id id, uint64_t interval_ns, unsigned burst)
{
	struct sluice_limits limits;
	__u32 zero = 0;
	int fd = bpf_map__fd(gate->skel->maps.limits);

	if (bpf_map_lookup_elem(fd, &zero, &limits))
		die("limits");
	limits.limit[id] = (struct sluice_limit){.interval_ns = interval_ns, .tolerance_ns = interval_ns * (burst - 1)};
	if (bpf_map_update_elem(fd, &zero, &limits, 0))
		die("limits");
	gate->syn_limited |= id == SLUICE_LIMIT_SYN_PREFIX;
}

static void put_home(struct gate *gate, __u32 node, const struct sluice_answer_bytes *answer)
{
	if (bpf_map_update_elem(bpf_map__fd(gate->skel->maps.homes), &node, answer, 0))
		die("the address of a node");
}

void gate_home(struct gate *gate, unsigned node, const char *url)
{
	struct sluice_answer_bytes answer;
	size_t size;

	if (answer_render_home(url, "", NULL, &answer, &size))
		die(url);
	put_home(gate, node, &answer);
	gate->homes |= 1u << node;
}

unsigned gate_home_answer(struct gate *gate, unsigned node, const char *token, char *out)
{
	struct sluice_answer_bytes answer;

	if (bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.homes), &node, &answer))
		die("the address of a node");
	return answer_fill_home(&answer, token, out);
}

static void forget_homes(struct gate *gate)
{
	static const struct sluice_answer_bytes none;

	for (unsigned node = 0; gate->homes; node++, gate->homes >>= 1)
		if (gate->homes & 1)
			put_home(gate, node, &none);
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
	gate->control->rate_mask = gate->rate_sets - 1;
	gate->control->rate_seed = 0x5eed;
	gate_alive(gate);
	gate->control->heartbeat_mono += TEST_HOURS_NS; /* a test may take its time on a busy machine */
	gate->sales[GATE_SALE] = (struct sluice_sale){.id = GATE_SALE,
		.opens_wall = now - 1000000000ULL,
		.ends_wall = now + 3600 * 1000000000ULL,
		.per_buyer = 1};
	gate->stock[GATE_SALE].free = 10;
	gate->keys[1] =
		(struct sluice_key){.k0 = 0x0706050403020100ULL, .k1 = 0x0f0e0d0c0b0a0908ULL, .id = 1, .valid = 1};
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
	bpf_map__set_max_entries(skel->maps.rates, sizes->rate_sets ? sizes->rate_sets : 4096);
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
	gate->rate_sets = bpf_map__max_entries(skel->maps.rates);
	gate->rates = map_words(skel->maps.rates, gate->rate_sets * sizeof(struct sluice_rate_set));
	gate->recent = map_words(skel->maps.recent, SLUICE_RECENT_SLOTS * sizeof(__u64));
	gate_add_service(gate, 0, "", GATE_PORT, SLUICE_SERVICE_SALE);
	gate_add_service(gate, 1, "", GATE_TCP_PORT, SLUICE_SERVICE_TCP);
	gate_add_service(gate, 2, "", GATE_DEAD_PORT, SLUICE_SERVICE_SALE);
	gate->listeners[0] = listen_on(GATE_PORT);
	gate->listeners[1] = listen_on(GATE_TCP_PORT);
	fill(gate);
}

static void empty_hash(int fd)
{
	uint8_t key[64];

	while (!bpf_map_get_next_key(fd, NULL, key))
		if (bpf_map_delete_elem(fd, key))
			die("emptying a map");
}

static void empty_syn_budget(int fd)
{
	static __u32 slots[SLUICE_SYN_SLOTS];
	static __u64 zeros[SLUICE_SYN_SLOTS];
	__u32 count = SLUICE_SYN_SLOTS;
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	for (__u32 i = 0; i < SLUICE_SYN_SLOTS; i++)
		slots[i] = i;
	if (bpf_map_update_batch(fd, slots, zeros, &count, &opts))
		die("emptying the SYN budget");
}

void gate_reset(struct gate *gate)
{
	static const struct sluice_limits off;
	__u32 zero = 0;

	empty_hash(bpf_map__fd(gate->skel->maps.admissions));
	empty_hash(bpf_map__fd(gate->skel->maps.buyers));
	memset(gate->recent, 0, SLUICE_RECENT_SLOTS * sizeof(__u64));
	memset(gate->rates, 0, gate->rate_sets * sizeof(*gate->rates));
	if (gate->syn_limited) /* 10 ms */
		empty_syn_budget(bpf_map__fd(gate->skel->maps.syn_budget));
	gate->syn_limited = false;
	gate_ring_drain(gate, NULL, 0);
	if (bpf_map_update_elem(bpf_map__fd(gate->skel->maps.limits), &zero, &off, 0))
		die("limits");
	memset(gate->control, 0, sizeof(*gate->control));
	memset(gate->sales, 0, SLUICE_MAX_SALES * sizeof(*gate->sales));
	memset(gate->stock, 0, SLUICE_MAX_SALES * sizeof(*gate->stock));
	memset(gate->keys, 0, 2 * sizeof(*gate->keys));
	forget_homes(gate);
	fill(gate);
}

struct drained {
	struct sluice_admitted *out;
	unsigned max, count;
};

static int take_record(void *arg, void *data, size_t size)
{
	struct drained *drained = arg;

	if (size != sizeof(struct sluice_admitted))
		die("a record of another size on the ring");
	if (drained->count < drained->max)
		memcpy(&drained->out[drained->count], data, size);
	drained->count++;
	return 0;
}

unsigned gate_ring_drain(struct gate *gate, struct sluice_admitted *out, unsigned max)
{
	struct drained drained = {.out = out, .max = max};
	struct ring_buffer *ring;

	/* libbpf binds the context when it makes the reader, so each drain has its own. */
	ring = ring_buffer__new(bpf_map__fd(gate->skel->maps.ring), take_record, &drained, NULL);
	if (!ring || ring_buffer__consume(ring) < 0)
		die("the ring");
	ring_buffer__free(ring);
	return drained.count;
}

#define COUNTER_ROWS ((SLUICE_MAX_SERVICES + 1) * SLUICE_REASON_ROWS)
#define UNPROTECTED_ROW (SLUICE_MAX_SERVICES * SLUICE_REASON_ROWS)

static void read_rows(struct gate *gate, __u32 first, __u32 count, uint64_t *packets)
{
	static struct sluice_counter *values;
	static __u32 rows[COUNTER_ROWS];
	int cpus = libbpf_num_possible_cpus();
	__u32 got = count, before = first - 1, next;
	LIBBPF_OPTS(bpf_map_batch_opts, opts);

	if (!values)
		values = calloc((size_t)COUNTER_ROWS * cpus, sizeof(*values));
	/* The kernel goes on behind the row that it is given; -ENOENT says that it came to the end. */
	if (!values ||
		(bpf_map_lookup_batch(bpf_map__fd(gate->skel->maps.counters), first ? &before : NULL, &next, rows,
			 values, &got, &opts) &&
			errno != ENOENT) ||
		got != count)
		die("counters");
	for (__u32 i = 0; i < count; i++) {
		packets[rows[i]] = 0;
		for (int cpu = 0; cpu < cpus; cpu++)
			packets[rows[i]] += values[i * cpus + cpu].packets;
	}
}

/* Reading a row takes 250 ns, so a single run reads those of the services that tests use; gate_close looks at the rest. */
static void read_used_counters(struct gate *gate, uint64_t *packets)
{
	read_rows(gate, 0, GATE_SERVICES * SLUICE_REASON_ROWS, packets);
	read_rows(gate, UNPROTECTED_ROW, SLUICE_REASON_ROWS, packets);
}

static void check_unused_counters(struct gate *gate)
{
	static uint64_t packets[COUNTER_ROWS];

	read_rows(gate, 0, COUNTER_ROWS, packets);
	for (int row = GATE_SERVICES * SLUICE_REASON_ROWS; row < UNPROTECTED_ROW; row++) {
		if (packets[row]) {
			fprintf(stderr, "counter row %d of a service that does not exist was counted in\n", row);
			exit(1);
		}
	}
}

void gate_close(struct gate *gate)
{
	check_unused_counters(gate);
	close(gate->listeners[0]);
	close(gate->listeners[1]);
	munmap(gate->control, sizeof(struct sluice_control));
	munmap(gate->sales, SLUICE_MAX_SALES * sizeof(struct sluice_sale));
	munmap(gate->stock, SLUICE_MAX_SALES * sizeof(struct sluice_stock));
	munmap(gate->keys, 2 * sizeof(struct sluice_key));
	munmap(gate->recent, SLUICE_RECENT_SLOTS * sizeof(__u64));
	munmap(gate->rates, gate->rate_sets * sizeof(*gate->rates));
	gate_bpf__destroy(gate->skel);
}

uint64_t gate_counted(struct gate *gate, int reason)
{
	uint64_t packets[COUNTER_ROWS], sum = 0;

	read_rows(gate, 0, COUNTER_ROWS, packets);
	for (int row = reason; row < COUNTER_ROWS; row += SLUICE_REASON_ROWS)
		sum += packets[row];
	return sum;
}

uint64_t gate_counted_all(struct gate *gate)
{
	uint64_t packets[COUNTER_ROWS], sum = 0;

	read_rows(gate, 0, COUNTER_ROWS, packets);
	for (int row = 0; row < COUNTER_ROWS; row++)
		sum += packets[row];
	return sum;
}

uint64_t gate_called(struct gate *gate, int reason)
{
	int cpus = libbpf_num_possible_cpus();
	__u64 *values = calloc(cpus, sizeof(*values)), sum = 0;
	__u32 row = reason;

	if (!values || bpf_map_lookup_elem(bpf_map__fd(gate->skel->maps.calls), &row, values))
		die("calls");
	for (int cpu = 0; cpu < cpus; cpu++)
		sum += values[cpu];
	free(values);
	return sum;
}

void gate_run_raw(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = length, .data_out = run->bytes,
		.data_size_out = sizeof(run->bytes));

	if (bpf_prog_test_run_opts(gate->prog, &opts))
		die("BPF_PROG_TEST_RUN");
	run->action = opts.retval;
	run->length = opts.data_size_out;
	run->untouched = run->length == length && !memcmp(run->bytes, bytes, length);
	run->reason = run->service = -1;
	memset(&run->parsed, 0, sizeof(run->parsed));
	if (run->action == 3 /* XDP_TX */)
		run->parsed = frame_parse(run->bytes, run->length);
}

void gate_run(struct gate *gate, const uint8_t *bytes, unsigned length, struct run *run)
{
	static uint64_t before[COUNTER_ROWS], after[COUNTER_ROWS];
	uint64_t changed = 0;

	read_used_counters(gate, before);
	gate_run_raw(gate, bytes, length, run);
	read_used_counters(gate, after);
	for (int row = 0; row < COUNTER_ROWS; row++) {
		if (after[row] == before[row])
			continue;
		changed += after[row] - before[row];
		run->reason = row % SLUICE_REASON_ROWS;
		run->service = row / SLUICE_REASON_ROWS;
	}
	if (changed != 1)
		run->reason = -1;
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
	return snprintf(out, size,
		"POST /v1/orders/%s HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
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

bool gate_note(struct gate *gate, const struct frame *frame, bool answered, uint64_t age_ns)
{
	struct sluice_addr source, destination;
	__u64 hash, *word;

	if (addr_parse(frame->source, &source) || addr_parse(frame->destination, &destination))
		die(frame->source);
	hash = sluice_flow_hash(&source, &destination, frame->sport, frame->dport, gate->control->rate_seed);
	word = &gate->recent[hash % SLUICE_RECENT_SLOTS];
	if (*word && (*word ^ hash) >> SLUICE_RECENT_FLOW_SHIFT)
		return false;
	*word = sluice_recent_word(hash, answered, frame->ack - 1, time_mono_ns() - age_ns);
	return true;
}

unsigned gate_rates_kept(struct gate *gate)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < gate->rate_sets; i++)
		for (unsigned way = 0; way < SLUICE_RATE_WAYS; way++)
			kept += gate->rates[i].way[way].name != 0;
	return kept;
}

struct sluice_rate *gate_rate_of(struct gate *gate, const struct sluice_rate_key *key)
{
	__u64 name = sluice_rate_name(key, gate->control->rate_seed);
	struct sluice_rate_set *set = &gate->rates[name & gate->control->rate_mask];

	for (unsigned way = 0; way < SLUICE_RATE_WAYS; way++)
		if (set->way[way].name == name)
			return &set->way[way];
	return NULL;
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
