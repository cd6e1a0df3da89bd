# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
# Manual pages, bash completion, units and the Debian package; and libseccomp, with which daemon and writer close their own system calls.
#   make man            manual pages and completion in $(BUILD)/man and $(BUILD)/completion
#   make install-extra  both to $(DESTDIR)$(prefix)/share (part of `make install`)
#   make install-units  systemd units to $(DESTDIR)$(prefix)/lib/systemd/system; they want the users and the config of docs/operations.md
#   make uninstall      takes away what these and `make install` put there; the config stays, as ledger, keys and users do
#   make deb            the package, in $(BUILD)/deb
#   make check-deb      installs, upgrades and purges it in a chroot with systemd (root, a Debian mirror, two minutes)
LIBS_DAEMON += $(call pkg,libseccomp)
LIBS_WRITER += $(call pkg,libseccomp)
LIBS_UNIT   += $(call pkg,libseccomp)

MAN_PAGES  := $(patsubst scripts/packaging/man/%.in,$(BUILD)/man/%,$(wildcard scripts/packaging/man/*.in))
COMPLETION := $(BUILD)/completion/sluice
UNITS      := $(wildcard scripts/systemd/*.service)
# The same sources give the same package: of the last commit, else of today.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
MAN_DATE   = $(shell date -u -d @$(SOURCE_DATE_EPOCH) +%F)
unitdir   ?= $(prefix)/lib/systemd/system

.PHONY: man install-extra install-units uninstall deb check-deb

man: $(MAN_PAGES) $(COMPLETION)

$(BUILD)/man/%: scripts/packaging/man/%.in scripts/packaging/man-page.sh docs/sluice.conf.example $(PROGRAMS)
	$(call say,MAN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)scripts/packaging/man-page.sh $< $(BUILD) $(VERSION) $(MAN_DATE) > $@

$(COMPLETION): scripts/completion.bash.in scripts/packaging/completion.sh $(BUILD)/sluice
	$(call say,WORDS,$@)
	$(Q)mkdir -p $(@D)
	$(Q)scripts/packaging/completion.sh $(BUILD) > $@

install: install-extra

install-extra: man
	install -d $(DESTDIR)$(prefix)/share/man/man5 $(DESTDIR)$(prefix)/share/man/man8 $(DESTDIR)$(prefix)/share/bash-completion/completions
	install -m 0644 $(filter %.5,$(MAN_PAGES)) $(DESTDIR)$(prefix)/share/man/man5/
	install -m 0644 $(filter %.8,$(MAN_PAGES)) $(DESTDIR)$(prefix)/share/man/man8/
	install -m 0644 $(COMPLETION) $(DESTDIR)$(prefix)/share/bash-completion/completions/

install-units:
	install -d $(DESTDIR)$(unitdir) $(DESTDIR)$(prefix)/lib/sluice
	for unit in $(UNITS); do \
		sed 's|/usr/sbin/|$(prefix)/sbin/|g; s|/usr/lib/sluice/|$(prefix)/lib/sluice/|g' $$unit > $(DESTDIR)$(unitdir)/$${unit##*/} && \
		chmod 0644 $(DESTDIR)$(unitdir)/$${unit##*/} || exit 1; \
	done
	sed 's|/usr/sbin/|$(prefix)/sbin/|g' scripts/systemd/gate-up > $(DESTDIR)$(prefix)/lib/sluice/gate-up
	chmod 0755 $(DESTDIR)$(prefix)/lib/sluice/gate-up

uninstall:
	rm -f $(PROGRAMS:$(BUILD)/%=$(DESTDIR)$(prefix)/sbin/%) $(UNITS:scripts/systemd/%=$(DESTDIR)$(unitdir)/%)
	rm -f $(patsubst $(BUILD)/man/%,$(DESTDIR)$(prefix)/share/man/man5/%,$(filter %.5,$(MAN_PAGES)))
	rm -f $(patsubst $(BUILD)/man/%,$(DESTDIR)$(prefix)/share/man/man8/%,$(filter %.8,$(MAN_PAGES)))
	rm -f $(DESTDIR)$(prefix)/share/bash-completion/completions/sluice
	rm -rf $(DESTDIR)$(prefix)/lib/sluice $(DESTDIR)$(prefix)/share/doc/sluice

deb: all man
	$(Q)SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) MAKE='$(MAKE)' scripts/packaging/build-deb.sh $(BUILD) $(VERSION)

check-deb: deb
	$(Q)MAKE='$(MAKE)' scripts/packaging/test-deb.sh $(BUILD) $(VERSION)
