# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Fuzzing with libFuzzer (clang and its runtime: libclang-rt-14-dev). docs/fuzzing.md says what each target covers.
#   make check-fuzz           every input that is kept, then a bounded run of each target (part of `make check`)
#   make fuzz                 each target for FUZZ_SECONDS; FUZZ="gate writer" only those
#   make fuzz-coverage        lines that the kept inputs and those of `make fuzz` reach, by llvm-cov
#   make fuzz-seeds           writes the built seeds of tests/fuzz/corpus anew

FUZZ_SECONDS ?= 60
FUZZ_TARGETS := $(sort $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c)))
FUZZ         ?= $(FUZZ_TARGETS)
FUZZ_BUILD    = $(BUILD)/fuzz

FUZZ_SANITIZE   ?= -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
FUZZ_LINK       ?= -fsanitize=fuzzer,address,undefined
FUZZ_CFLAGS      = -O1 -g -fno-omit-frame-pointer $(WARN) -Wno-missing-prototypes -D_GNU_SOURCE -DSLUICE_VERSION='"fuzz"' \
	-fno-strict-aliasing -pthread -MMD -MP -Iinclude -Iuserspace -I$(BUILD)/gen
# What has the gate's own code in it: the language as BPF has it, our bpf_helpers.h, and no word about alignment, which a frame
# does not give and neither XDP nor this machine needs.
FUZZ_GATE_CFLAGS = -std=gnu11 -Itests/fuzz/shim -Ibpf -fno-sanitize=alignment -Wno-unused-function \
	-Wno-address-of-packed-member -Wno-pointer-arith -Wno-shadow

FUZZ_SHIM  := tests/fuzz/shim/maps tests/fuzz/shim/packet
FUZZ_WORLD := $(FUZZ_SHIM) tests/fuzz/world tests/fuzz/libbpf tests/packet/frames $(addprefix userspace/common/,answers answers_check file token reasons)
# But what reads order streams: it answers nobody. What it takes an entry apart with has a target of its own.
FUZZ_WRITER := $(filter-out %/main %/consume %/consume_entry %/consume_store,$(patsubst %.c,%,$(wildcard userspace/writer/*.c)))
# All of the daemon but what stands between it and the writer, and main.c, which the target has within it.
FUZZ_DAEMON := $(filter-out $(addprefix userspace/daemon/,main pipeline batches questions recovery recovery_buyers recovery_kept writer_link), \
	$(patsubst %.c,%,$(wildcard userspace/daemon/*.c)))

# Of each target: what it is linked with, libraries, runs in check-fuzz, longest input.
fuzz_parts_frame   := $(FUZZ_SHIM)
fuzz_parts_request := $(FUZZ_SHIM)
fuzz_parts_token   := $(FUZZ_WORLD)
fuzz_parts_gate    := $(FUZZ_WORLD)
fuzz_parts_lists   := $(FUZZ_SHIM) tests/fuzz/libbpf $(addprefix userspace/common/,lists lists_index addr)
fuzz_parts_config  := userspace/common/config userspace/common/addr
fuzz_parts_text    := userspace/common/addr userspace/common/timefmt
fuzz_parts_import  := $(addprefix userspace/common/,list_text addr timefmt)
fuzz_parts_entry   := userspace/writer/consume_entry userspace/writer/store $(addprefix userspace/common/,addr timefmt)
fuzz_parts_redis   := $(addprefix userspace/fleet/,lease lease_book settings settings_sync redis_slots)
fuzz_parts_http    := userspace/daemon/http_text
fuzz_parts_writer  := $(FUZZ_WRITER) tests/fuzz/quiet $(addprefix userspace/common/,wire addr timefmt realtime)
fuzz_parts_control := $(FUZZ_WORLD) $(FUZZ_DAEMON) $(patsubst %.c,%,$(wildcard userspace/fleet/*.c)) $(patsubst %.c,%,$(wildcard userspace/writer/query*.c)) userspace/writer/store \
	$(addprefix tests/fuzz/,quiet pipeline memory_store) \
	$(filter-out $(addprefix userspace/common/,log answers answers_check file token reasons),$(patsubst %.c,%,$(wildcard userspace/common/*.c)))

fuzz_libs_import = $(call pkg,jansson)
fuzz_libs_config = $(call pkg,libconfig)
fuzz_libs_entry  = $(call pkg,hiredis)
fuzz_libs_redis  = $(call pkg,hiredis jansson)
fuzz_libs_http   = $(call pkg,jansson)
fuzz_libs_token  = $(call pkg,jansson)
fuzz_libs_gate   = $(call pkg,jansson)
fuzz_libs_control = $(LIBS_DAEMON) -Wl,--wrap=time_wall_ns,--wrap=time_mono_ns
fuzz_libs_writer = $(LIBS_WRITER) -Wl,--wrap=poll

fuzz_runs_frame   := 300000 600
fuzz_runs_request := 100000 300
fuzz_runs_token   := 60000 300
fuzz_runs_gate    := 25000 1024
fuzz_runs_lists   := 4000 400
fuzz_runs_config  := 8000 2048
fuzz_runs_text    := 200000 80
fuzz_runs_import  := 100000 400
fuzz_runs_entry   := 6000 1200
fuzz_runs_redis   := 12000 800
fuzz_runs_http    := 100000 600
fuzz_runs_control := 2500 1500
fuzz_runs_writer  := 1200 600

.PHONY: check-fuzz fuzz fuzz-programs fuzz-coverage fuzz-seeds

# Headers that the Makefile makes.
FUZZ_GENERATED := $(addprefix $(BUILD)/,$(shell sed -n 's|^[$$](BUILD)/\(gen/[a-z_]*[.]h\):.*|\1|p' Makefile))

fuzz_objects = $(patsubst %,$(FUZZ_BUILD)/%.o,$(1))

$(FUZZ_BUILD)/userspace/%.o: userspace/%.c tests/fuzz/rules.mk | $(FUZZ_GENERATED)
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) -std=c17 $(FUZZ_CFLAGS) $(FUZZ_SANITIZE) $(call pkg_cflags,libbpf libconfig jansson libmicrohttpd sqlite3 libpq hiredis) -c $< -o $@

$(FUZZ_BUILD)/tests/%.o: tests/%.c tests/fuzz/rules.mk
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) $(FUZZ_SANITIZE) $(FUZZ_GATE_CFLAGS) -c $< -o $@

define fuzz_program
$(FUZZ_BUILD)/fuzz_$(1): $(call fuzz_objects,tests/fuzz/fuzz_$(1) $(fuzz_parts_$(1)))
	$$(call say,LINK,$$@)
	$$(Q)$$(CLANG) $$(FUZZ_LINK) -pthread $$^ $$(fuzz_libs_$(1)) -o $$@
endef
$(foreach target,$(FUZZ_TARGETS),$(eval $(call fuzz_program,$(target))))

fuzz-programs: $(FUZZ:%=$(FUZZ_BUILD)/fuzz_%)

check-fuzz: fuzz-programs
	$(Q)tests/fuzz/run.sh check $(FUZZ_BUILD) $(foreach target,$(FUZZ),$(target) $(fuzz_runs_$(target)))

fuzz: fuzz-programs
	$(Q)tests/fuzz/run.sh long $(FUZZ_BUILD) $(foreach target,$(FUZZ),$(target) $(FUZZ_SECONDS) $(word 2,$(fuzz_runs_$(target))))

fuzz-coverage:
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz-coverage FUZZ='$(FUZZ)' \
		FUZZ_SANITIZE='-fsanitize=fuzzer-no-link -fprofile-instr-generate -fcoverage-mapping' \
		FUZZ_LINK='-fsanitize=fuzzer -fprofile-instr-generate -fcoverage-mapping' fuzz-programs
	$(Q)tests/fuzz/run.sh coverage $(BUILD)/fuzz-coverage/fuzz $(foreach target,$(FUZZ),$(target) $(FUZZ_BUILD)/corpus 0)

$(FUZZ_BUILD)/seeds: tests/fuzz/seeds.c tests/packet/frames.c userspace/common/file.c userspace/common/token.c tests/fuzz/rules.mk
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 $(WARN) -O1 -g -D_GNU_SOURCE -Iinclude -Iuserspace -Itests/fuzz $(filter %.c,$^) -o $@

fuzz-seeds: $(FUZZ_BUILD)/seeds
	$(Q)$< tests/fuzz/corpus
