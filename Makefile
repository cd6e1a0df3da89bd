# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Sluice. `make help` lists the targets. V=1 shows the commands.

VERSION   := 0.1.0
CC        ?= cc
CLANG     ?= clang
BPFTOOL   ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PYTHON    ?= /usr/bin/python3
PKGCONFIG ?= pkg-config
prefix    ?= /usr/local
DESTDIR   ?=
BUILD     ?= build

Q = $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wundef
CFLAGS  ?= -O2 -g
ALL_CFLAGS = -std=c17 $(WARN) $(CFLAGS) -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -D_FORTIFY_SOURCE=2 -fstack-protector-strong \
	-fno-strict-aliasing -pthread -MMD -MP -Iinclude -Iuserspace -I$(BUILD)/gen -I$(BUILD)/bpf
ALL_LDFLAGS = $(LDFLAGS) -pthread -Wl,-z,relro,-z,now
BPF_CFLAGS = -std=gnu11 -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-function -Wno-address-of-packed-member -fno-stack-protector -Iinclude -I/usr/include/$(shell $(CC) -print-multiarch)

pkg = $(shell $(PKGCONFIG) --cflags --libs $(1) 2>/dev/null)
pkg_cflags = $(shell $(PKGCONFIG) --cflags $(1) 2>/dev/null)
LIBS_COMMON  = $(call pkg,libbpf libconfig jansson)
LIBS_CLI     = $(LIBS_COMMON) $(call pkg,libxdp libcurl sqlite3) -lm
LIBS_FLEET   = $(call pkg,hiredis nettle)
LIBS_DAEMON  = $(LIBS_COMMON) $(call pkg,libmicrohttpd libcurl) $(LIBS_FLEET) -lm
LIBS_WRITER  = $(LIBS_COMMON) $(call pkg,sqlite3 libpq) $(LIBS_FLEET)
LIBS_UNIT    = $(LIBS_CLI) $(call pkg,libpq libmicrohttpd cmocka) $(LIBS_FLEET)

BPF_NAMES := $(patsubst bpf/%.bpf.c,%,$(wildcard bpf/*.bpf.c))
SKELETONS := $(BPF_NAMES:%=$(BUILD)/bpf/%.skel.h)
COMMON_O  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/common/*.c))
CLI_O     := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/cli/*.c userspace/drill/*.c))
DAEMON_O  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/daemon/*.c))
# What daemon and writer need to be one of many nodes: the lease protocol, its Lua scripts, and the way to Redis.
FLEET_O   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/fleet/*.c))
FLEET_LUA := $(wildcard userspace/fleet/scripts/*.lua)
WRITER_O  := $(patsubst %.c,$(BUILD)/%.o,$(wildcard userspace/writer/*.c))
WEB       := $(wildcard userspace/web/*)
PROGRAMS  := $(BUILD)/sluice $(BUILD)/sluiced $(BUILD)/sluice-writer
LIB       := $(BUILD)/libsluice.a
FLEET_LIB := $(BUILD)/libfleet.a
# Tests of programs link what they need of all programs' objects, their mains excepted: out of a library, which is several times as fast to link as all.
UNIT_LIB  := $(BUILD)/libunit.a
UNIT      := $(patsubst tests/unit/test_%.c,$(BUILD)/tests/unit/test_%,$(wildcard tests/unit/test_*.c))
PACKET    := $(patsubst tests/packet/test_%.c,$(BUILD)/tests/packet/test_%,$(wildcard tests/packet/test_*.c))
PACKET_SUPPORT_O := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/packet/test_%.c,$(wildcard tests/packet/*.c)))
BENCH     := $(patsubst tests/bench/bench_%.c,$(BUILD)/tests/bench/bench_%,$(wildcard tests/bench/bench_*.c))
# The bench's own BPF programs: built like the gate's, linked into nothing else, never installed.
BENCH_SKELETONS := $(patsubst tests/bench/%.bpf.c,$(BUILD)/bpf/%.skel.h,$(wildcard tests/bench/*.bpf.c))
BENCH_SUPPORT_O := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/bench/bench_%.c %.bpf.c,$(wildcard tests/bench/*.c)))

.PHONY: docs all deps deps-check deps-demo deps-bench check check-unit check-packet check-e2e check-lasting check-clients check-nodes check-fleet check-stream soak-fleet demo bench run-check run-demo run-bench lint lint-clang sanitize install clean help FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: $(PROGRAMS)

help:
	@echo 'all       programs and BPF objects in $(BUILD)/'
	@echo 'check     every test (needs root)          check-unit, -packet, -e2e, …: one part (scripts/check.sh)'
	@echo 'demo      a whole flash sale in veth namespaces (needs root); report in $(BUILD)/demo/report.json'
	@echo 'bench     cost of each path, growth, and Sluice beside its peers (needs root); reports and plots in $(BUILD)/bench/'
	@echo 'bench-fleet  what many nodes cost: calls to Redis, stalls, CPU of an order (needs root; QUICK=1: half a minute)'
	@echo 'docs      docs/reasons.md and docs/problems.md from their lists'
	@echo 'fuzz      every fuzz target for FUZZ_SECONDS each (check has a short run)'
	@echo 'soak      programs killed under load for SOAK_SECONDS or SOAK_CYCLES, with a count at the end (needs root)'
	@echo 'kernels   Debian kernels 6.1 and 6.12 in QEMU: packet tests, a sale, virtio-net, libxdp dispatcher (needs root)'
	@echo 'man       manual pages and bash completion    deb  a Debian package    check-deb  it, tried in a clean chroot'
	@echo 'deps      install what is missing on Debian 12; check, demo and bench do that for themselves'
	@echo 'lint      clang-format, clang'\''s warnings, cppcheck, shellcheck'
	@echo 'sanitize  unit tests under ASan and UBSan'
	@echo 'install   to $$(DESTDIR)$$(prefix)             uninstall what install and install-units put there'
	@echo 'clean     removes $(BUILD)/'

# --- BPF --------------------------------------------------------------------------------------------------------------
$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@

$(BUILD)/bpf/%.bpf.o: tests/bench/%.bpf.c
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -Ibpf -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@

$(BUILD)/bpf/%.skel.h: $(BUILD)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(*)_bpf > $@

# --- generated --------------------------------------------------------------------------------------------------------
$(BUILD)/gen/web_assets.h: scripts/embed-web.sh $(WEB)
	$(call say,EMBED,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sh scripts/embed-web.sh $(WEB) > $@

# The same table of files, of the API's descriptions.
$(BUILD)/gen/api_documents.h: scripts/embed-web.sh $(wildcard docs/openapi-*.json)
	$(call say,EMBED,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sh scripts/embed-web.sh $(wildcard docs/openapi-*.json) > $@

$(BUILD)/gen/fleet_scripts.h: scripts/embed-web.sh $(FLEET_LUA)
	$(call say,EMBED,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sh scripts/embed-web.sh $(FLEET_LUA) > $@

# --- userspace --------------------------------------------------------------------------------------------------------
$(BUILD)/%.o: %.c $(BUILD)/flags | $(SKELETONS) $(BUILD)/gen/web_assets.h $(BUILD)/gen/api_documents.h $(BUILD)/gen/fleet_scripts.h
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(call pkg_cflags,libbpf libxdp libconfig jansson libcurl libmicrohttpd sqlite3 libpq hiredis) -c $< -o $@

# Rebuild when compiler or flags change (gcc, clang and sanitizer builds may share a directory by mistake).
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(CFLAGS) $(LDFLAGS) $(VERSION)' | cmp -s - $@ || echo '$(CC) $(CFLAGS) $(LDFLAGS) $(VERSION)' > $@

$(LIB): $(COMMON_O)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(FLEET_LIB): $(FLEET_O)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/sluice: $(CLI_O) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_CLI) -o $@

$(BUILD)/sluiced: $(DAEMON_O) $(FLEET_LIB) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_DAEMON) -o $@

$(BUILD)/sluice-writer: $(WRITER_O) $(FLEET_LIB) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_WRITER) -o $@

# --- tests ------------------------------------------------------------------------------------------------------------
$(UNIT_LIB): $(filter-out %/main.o,$(CLI_O) $(DAEMON_O) $(WRITER_O))
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/tests/unit/test_%: $(BUILD)/tests/unit/test_%.o $(UNIT_LIB) $(FLEET_LIB) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_UNIT) -o $@

$(BUILD)/tests/packet/test_%: $(BUILD)/tests/packet/test_%.o $(PACKET_SUPPORT_O) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_COMMON) $(call pkg,cmocka) -o $@

$(BENCH_SUPPORT_O): | $(BENCH_SKELETONS)

$(BUILD)/tests/bench/bench_%: $(BUILD)/tests/bench/bench_%.o $(BENCH_SUPPORT_O) $(PACKET_SUPPORT_O) $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(CFLAGS) $^ $(LIBS_COMMON) -lm -o $@

# What every store must do is asked of each: of the default by its turn among all tests, of the others by itself.
STORE_TESTS := $(filter $(patsubst %,$(BUILD)/tests/unit/test_writer_%,store orders events once keep query),$(UNIT))

# Two thirds of the time they wait (for servers, clocks, disks), these above all, which come first; so several at a time.
UNIT_LASTING := $(patsubst %,$(BUILD)/tests/unit/test_%,writer_postgres fleet_redis config writer_faults drill_crowd)
UNIT_JOBS    := 3

check-unit: $(UNIT)
	$(Q)scripts/run-tests.sh -j $(UNIT_JOBS) $(UNIT_LASTING) $(filter-out $(UNIT_LASTING),$(UNIT))
	$(Q)SLUICE_TEST_STORE=postgres scripts/run-tests.sh -j $(UNIT_JOBS) $(STORE_TESTS)

check-packet: all $(PACKET)
	$(Q)scripts/run-tests.sh $(PACKET)

# End to end in six parts, which can run side by side: what must outlast restarts and crashes of its parts, what clients do on the wire, several
# nodes (what each of them knows and has, and crowds at all of them while things break), what goes between them and Redis and from there
# downstream, and all else.
e2e          = $(patsubst %,tests/e2e/test_%.py,$(1))
E2E_LASTING := $(call e2e,clock kept order_life recovery revocation store_postgres verify verify_life webhooks)
E2E_CLIENTS := $(call e2e,flood hostile_control load_clients refusals sale segments slow_clients strange_clients tcp wrong_node)
E2E_STREAM  := $(call e2e,fleet_redis fleet_stream)
E2E_NODES   := $(call e2e,fleet_homes fleet_leases fleet_settings)
E2E_FLEET   := $(filter-out $(E2E_STREAM) $(E2E_NODES),$(wildcard tests/e2e/test_fleet*.py))
pytest       = SLUICE_BUILD=$(abspath $(BUILD)) $(PYTHON) -m pytest -p no:cacheprovider -q -rfEs

check-e2e: all
	$(Q)$(pytest) tests/e2e $(addprefix --ignore=,$(E2E_LASTING) $(E2E_CLIENTS) $(E2E_FLEET) $(E2E_NODES) $(E2E_STREAM))

check-lasting: all
	$(Q)$(pytest) $(E2E_LASTING)

check-clients: all
	$(Q)$(pytest) $(E2E_CLIENTS)

check-nodes: all
	$(Q)$(pytest) $(E2E_NODES)

check-fleet: all
	$(Q)$(pytest) $(E2E_FLEET)

check-stream: all
	$(Q)$(pytest) $(E2E_STREAM)

soak-fleet: all
	$(Q)SOAK_SECONDS=$(or $(SOAK_SECONDS),600) $(pytest) -s tests/e2e/test_fleet_faults.py -k again_and_again

# The commands of the README also set a bare machine up. What they need is looked for first (a fraction of a second when nothing is
# missing), and make starts again after it: the compiler's and pkg-config's answers may be new.
deps:
	$(Q)scripts/install-deps.sh --quiet

deps-check: ; $(Q)scripts/install-deps.sh --quiet --for build,test,fuzz,kernels,package
deps-demo:  ; $(Q)scripts/install-deps.sh --quiet --for build,test,demo
deps-bench: ; $(Q)scripts/install-deps.sh --quiet --for build,bench

check demo bench: %: deps-%
	$(Q)$(MAKE) --no-print-directory run-$@

run-check:
	$(Q)$(MAKE) -j$(shell nproc) --no-print-directory all
	$(Q)BUILD='$(BUILD)' MAKE='$(MAKE)' scripts/check.sh

run-demo: all
	$(Q)scripts/demo.sh $(BUILD)

run-bench: all $(BENCH)
	$(Q)mkdir -p $(BUILD)/bench
	$(Q)scripts/bench.sh $(BUILD)

docs: $(BUILD)/tests/unit/test_reasons $(BUILD)/tests/unit/test_problems
	$(Q)for page in $^; do SLUICE_WRITE_DOCS=1 $$page || exit 1; done

lint:
	$(Q)MAKE='$(MAKE)' BUILD='$(BUILD)' scripts/lint.sh

# A part of lint: what gcc passes and clang warns of. Nothing is compiled, so it costs a tenth of a build; the BPF programs and the fuzzers are
# clang's anyway.
CLANG_READS := $(wildcard userspace/*/*.c tests/unit/*.c tests/packet/*.c) $(filter-out %.bpf.c,$(wildcard tests/bench/*.c))

lint-clang: $(SKELETONS) $(BENCH_SKELETONS) $(BUILD)/gen/web_assets.h $(BUILD)/gen/api_documents.h $(BUILD)/gen/fleet_scripts.h
	$(Q)echo $(CLANG_READS) | xargs -n 8 -P $$(nproc) $(CLANG) -fsyntax-only $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(call pkg_cflags,libbpf libxdp libconfig jansson libcurl libmicrohttpd sqlite3 libpq hiredis)

sanitize:
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/sanitize CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -U_FORTIFY_SOURCE -Wno-error=cpp' check-unit

# All may read the config: the writer's unit is its own user from the start, and no secret is in the file.
install: all
	install -d $(DESTDIR)$(prefix)/sbin $(DESTDIR)$(prefix)/share/doc/sluice $(DESTDIR)/etc/sluice
	install -m 0755 $(PROGRAMS) $(DESTDIR)$(prefix)/sbin/
	install -m 0644 README.md LICENSE docs/*.md docs/sluice.conf.example $(DESTDIR)$(prefix)/share/doc/sluice/
	[ -e $(DESTDIR)/etc/sluice/sluice.conf ] || install -m 0644 docs/sluice.conf.example $(DESTDIR)/etc/sluice/sluice.conf

clean:
	rm -rf $(BUILD)

# Parts that bring their own targets: fuzzing, other kernels, packaging.
include $(wildcard tests/*/rules.mk scripts/*/rules.mk)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
