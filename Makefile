# Thin: what does the work are bin/bootstrap, the haneul command and tox.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help up down status test lint samples clean

help:
	@echo "make up      a cloud on this machine, with a first server"
	@echo "make down    stop it (make up goes on where it was)"
	@echo "make test    everything that this machine can run"
	@echo "make lint    style, types, layers"
	@echo "make samples the sample configuration and policies in etc/, anew"

.venv/.installed: setup.cfg pyproject.toml bin/bootstrap
	bin/bootstrap run

.venv/.test: setup.cfg pyproject.toml bin/bootstrap
	bin/bootstrap test

up: .venv/.installed
	.venv/bin/haneul up $(UP)

down status: .venv/.installed
	.venv/bin/haneul $@

test: .venv/.test
	.venv/bin/tox run $(TOX)

lint: .venv/.test
	.venv/bin/tox run -e lint

samples: .venv/.test
	.venv/bin/oslo-config-generator --config-file etc/config-generator.conf
	for api in compute image key_manager network volume; do \
	    .venv/bin/oslopolicy-sample-generator --namespace haneul.$$api --output-file etc/policy/$$api.yaml.sample; \
	done

clean:
	rm -rf .tox .venv build dist *.egg-info
