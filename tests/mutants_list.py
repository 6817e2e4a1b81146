"""The mutants of ``make mutants``: faults that the tests must notice, by room.

A row is the name of the fault; a file, a text that occurs in it once, and the text in its place;
and the tests of which one must then fail. A new test may be slow or wide; these are the narrowest.
"""

FINETUNE = 'tests/test_finetune_classifier.py::test_'
PRETRAIN = 'tests/test_run_pretraining.py::test_'
OPS = 'tests/ops/test_ops.py::test_'

TEXT = [
    (
        'accents kept in uncased models',
        'bert/text/tokenizer.py',
        'strip_accents=lower,',
        'strip_accents=False,',
        'tests/text/test_tokenizer.py::test_uncased_equals_gluonnlp_on_odd_text',
    ),
    (
        'words of up to 100 characters',
        'bert/text/tokenizer.py',
        'MAX_CHARACTERS_PER_WORD = 200',
        'MAX_CHARACTERS_PER_WORD = 100',
        'tests/text/test_tokenizer.py::test_a_word_of_more_than_200_characters_is_unknown',
    ),
    (
        'a Chinese block forgotten',
        'bert/text/tokenizer.py',
        '    (0x2B740, 0x2B81F),\n    (0x2B820, 0x2CEAF),\n',
        '    (0x2B740, 0x2B81F),\n',
        'tests/text/test_tokenizer.py::test_words_are_those_of_the_original_rules '
        'tests/text/test_tokenizer.py::test_every_character_is_treated_by_the_original_rules',
    ),
    (
        'exceptions put in reverse',
        'bert/text/tokenizer.py',
        'zip(exceptions, of_words)',
        'zip(reversed(exceptions), of_words)',
        'tests/text/test_tokenizer.py::test_exceptions_among_other_texts_keep_their_places',
    ),
    (
        'the second text loses the odd token',
        'bert/text/encoding.py',
        'half = limit // 2',
        'half = (limit + 1) // 2',
        'tests/text/test_encoding.py::test_truncation_equals_the_loop',
    ),
    (
        'the first [SEP] is of type 1',
        'bert/text/encoding.py',
        '(lengths[0] + 2).astype',
        '(lengths[0] + 1).astype',
        'tests/text/test_encoding.py::test_encode_by_hand',
    ),
    (
        'padding with id 0',
        'bert/text/encoding.py',
        'np.full((len(rows), width), encoded.padding, dtype',
        'np.full((len(rows), width), 0, dtype',
        'tests/text/test_encoding.py::test_pad_batch_by_hand',
    ),
    (
        'a vocabulary split at odd line ends',
        'bert/text/vocab.py',
        "read_text(path).replace('\\r\\n', '\\n').split('\\n')",
        "(read_text(path) + '\\n').splitlines()",
        'tests/text/test_vocab.py::test_vocab_txt',
    ),
    (
        'the order of tokens not in the fingerprint',
        'bert/text/vocab.py',
        "'\\n'.join(vocab.idx_to_token)",
        "'\\n'.join(sorted(vocab.idx_to_token))",
        'tests/text/test_vocab.py::test_fingerprints_differ',
    ),
    (
        'a mark before the first line kept',
        'bert/text/lines.py',
        'if number == 1 and line.startswith(MARK):',
        'if number == 0 and line.startswith(MARK):',
        'tests/text/test_lines.py',
    ),
    (
        'sampling of sentencepiece without its temperature',
        'bert/text/sentencepiece.py',
        'total[start] + self.alpha * score',
        'total[start] + score',
        'tests/text/test_sentencepiece.py::test_splits_have_their_probabilities',
    ),
]

DATA = [
    (
        'a word goes on across [SEP]',
        'bert/pretraining/masking.py',
        'candidates[:, :-1] & continues[:, 1:]',
        'continues[:, 1:]',
        'tests/pretraining/test_instances.py::test_whole_words_are_chosen_like_slowly',
    ),
    (
        '20 % of the masked tokens random',
        'bert/pretraining/masking.py',
        'chance >= 0.9',
        'chance >= 0.8',
        'tests/pretraining/test_instances.py::test_80_10_10',
    ),
    (
        'special tokens may be masked',
        'bert/pretraining/masking.py',
        '    special[ids] = True\n',
        '    special[ids[:1]] = True\n',
        'tests/pretraining/test_instances.py::test_symbols_of_both_kinds_of_vocabularies '
        'tests/pretraining/test_instances.py::test_every_instance',
    ),
    (
        'labels read after masking',
        'bert/pretraining/masking.py',
        '    labels[row, slot] = tokens[row, column]\n    weights[row, slot] = 1\n',
        '    tokens[row, column] = symbols.mask\n    labels[row, slot] = tokens[row, column]\n'
        '    weights[row, slot] = 1\n',
        'tests/pretraining/test_instances.py::test_a_worked_example '
        'tests/pretraining/test_instances.py::test_every_instance',
    ),
    (
        'random next sentences from the same document',
        'bert/pretraining/instances.py',
        'other += other >= document',
        'other += other > document',
        'tests/pretraining/test_instances.py::test_the_other_document_is_any_other',
    ),
    (
        'sentences after a random next are lost',
        'bert/pretraining/instances.py',
        'start = np.where(is_random, a_stop, end)',
        'start = end',
        'tests/pretraining/test_instances.py::test_a_worked_example',
    ),
    (
        'pairs always lose their ends',
        'bert/pretraining/instances.py',
        'a_start=pairs.a_start + rng.binomial(pairs.a_length - a_length, 0.5)',
        'a_start=pairs.a_start',
        'tests/pretraining/test_instances.py::test_truncated_side',
    ),
    (
        'the number of masked tokens rounded down',
        'bert/pretraining/instances.py',
        'np.rint(valid_lengths * recipe.masked_lm_prob)',
        'np.floor(valid_lengths * recipe.masked_lm_prob)',
        'tests/pretraining/test_instances.py::test_every_instance',
    ),
    (
        'instances in the order of the text',
        'bert/pretraining/instances.py',
        'pairs = pairs.take(rng.permutation(pairs.count))',
        'pairs = pairs.take(np.arange(pairs.count))',
        'tests/pretraining/test_instances.py::test_instances_are_shuffled',
    ),
    (
        'the last [SEP] is of type 0',
        'bert/pretraining/instances.py',
        'in_b & ~padding).astype',
        'in_b & ~padding & (column < last_sep[:, None])).astype',
        'tests/pretraining/test_instances.py::test_a_worked_example '
        'tests/pretraining/test_instances.py::test_every_instance',
    ),
    (
        'text cut within documents',
        'bert/pretraining/corpus.py',
        'while whole_documents and file.readline',
        'while not whole_documents and file.readline',
        'tests/pretraining/test_corpus.py::test_a_file_is_cut_between_documents',
    ),
    (
        'the end of a file does not end a document',
        'bert/pretraining/corpus.py',
        '        document += 1\n',
        '',
        'tests/pretraining/test_corpus.py::test_the_end_of_a_file_ends_a_document',
    ),
    (
        'all outputs with the same random numbers',
        'bert/pretraining/generation.py',
        'default_rng([plan.random_seed, plan.number])',
        'default_rng([plan.random_seed])',
        'tests/test_create_pretraining_data.py::test_equal_inputs_make_different_instances',
    ),
    (
        'a shard with other tokens is taken',
        'bert/pretraining/shards.py',
        'if foreign is not None or len(theirs) != len(tokens):',
        'if foreign is not None:',
        'tests/pretraining/test_shards.py::test_other_tokens',
    ),
    (
        'labels keep the ids of another order',
        'bert/pretraining/shards.py',
        "for name in ('input_ids', 'masked_lm_ids'):",
        "for name in ('input_ids',):",
        'tests/pretraining/test_shards.py::test_tokens_in_another_order',
    ),
    (
        'masked positions in the padding are taken',
        'bert/pretraining/shards.py',
        "('masked_lm_positions', lengths[:, None])",
        "('masked_lm_positions', arrays['input_ids'].shape[1])",
        'tests/pretraining/test_shards.py::test_impossible_values',
    ),
    (
        'mapped ids in too small a type',
        'bert/pretraining/shards.py',
        "largest = {'input_ids': len(tokens) - 1, 'masked_lm_ids': len(tokens) - 1}",
        'largest = {}',
        'tests/pretraining/test_shards.py::test_the_last_id_is_possible '
        'tests/pretraining/test_shards.py::test_mapped_ids_that_need_a_larger_type',
    ),
]

PRETRAINING = [
    (
        'the same batches of shards in each epoch',
        'bert/pretraining/batches.py',
        'default_rng([seed, epoch, number])',
        'default_rng([seed, number])',
        f'{PRETRAIN}each_epoch_has_its_own_batches',
    ),
    (
        'the same order of shards in each epoch',
        'bert/pretraining/sources.py',
        'for i in np.random.default_rng([seed, epoch]).permutation(len(self.paths)):',
        'for i in np.random.default_rng([seed]).permutation(len(self.paths)):',
        f'{PRETRAIN}units_hold_small_shards_together',
    ),
    (
        'the same pairs and masks of text in each epoch',
        'bert/pretraining/sources.py',
        'self.recipe, [seed, epoch, i])',
        'self.recipe, [seed, i])',
        f'{PRETRAIN}text_units',
    ),
    (
        'the last update is done again after a stop',
        'bert/pretraining/batches.py',
        'if (epoch, number, i) >= (first_epoch, first_unit, first_update):',
        'if (epoch, number, i) >= (first_epoch, first_unit, first_update - 1):',
        f'{PRETRAIN}resumed_run_has_the_same_bits',
    ),
    (
        'the longest row is trimmed',
        'bert/pretraining/batches.py',
        'width = lengths.max()',
        'width = lengths.max() - 1',
        f'{PRETRAIN}batches_are_trimmed',
    ),
    (
        'exchanged weights of the two losses',
        'bert/pretraining/loss.py',
        'factors = weight * scale / masks, 0 if no_nsp else weight * scale / rows',
        'factors = weight * scale / rows, 0 if no_nsp else weight * scale / masks',
        f'{PRETRAIN}the_objective_by_numpy',
    ),
    (
        'each batch weighted by its own masked tokens',
        'bert/pretraining/loss.py',
        'masks = max(1, sum(float(batch.mlm_weights.sum()) for batch in batches))',
        'masks = max(1, float(batches[0].mlm_weights.sum()) * len(batches))',
        f'{PRETRAIN}the_objective_by_numpy',
    ),
    (
        'slots without a masked token count',
        'bert/pretraining/loss.py',
        'F.sum(mlm_losses * mlm_weights)',
        'F.sum(mlm_losses)',
        f'{PRETRAIN}losses_by_numpy',
    ),
    (
        'next sentences learned in spite of --no_nsp',
        'bert/pretraining/loss.py',
        '0 if no_nsp else weight * scale / rows',
        'weight * scale / rows',
        f'{PRETRAIN}the_masked_lm_part_of_the_gradients',
    ),
    (
        'an infinite loss is ignored',
        'bert/pretraining/recorder.py',
        'if not np.isfinite(total.sums).all():',
        'if np.isnan(total.sums).all():',
        f'{PRETRAIN}infinite_loss',
    ),
    (
        'logs not cut when a run goes on',
        'bert/pretraining/recorder.py',
        '        cut_logs(folder, LOGS, sizes)\n',
        '        pass\n',
        f'{PRETRAIN}resumed_run_has_the_same_bits',
    ),
]

TRAINING = [
    (
        'warm-up from a step too late',
        'bert/training/schedule.py',
        'return peak * step / warmup_steps',
        'return peak * (step - 1) / warmup_steps',
        'tests/training/test_schedule.py::test_two_straight_lines',
    ),
    (
        'decay counted without the warm-up',
        'bert/training/schedule.py',
        '(total_steps - step) / (total_steps - warmup_steps)',
        '(total_steps - step) / total_steps',
        'tests/training/test_schedule.py::test_two_straight_lines',
    ),
    (
        'weight decay on LayerNorm',
        'bert/training/update.py',
        "'.*beta|.*gamma|.*bias'",
        "'.*beta|.*bias'",
        'tests/training/test_update.py::test_update_equals_numpy',
    ),
    (
        'no clipping',
        'bert/training/update.py',
        'optimizer.clip_factor = factor',
        'optimizer.clip_factor = None',
        'tests/training/test_update.py::test_update_equals_numpy',
    ),
    (
        'small gradients made larger',
        'bert/training/update.py',
        'factor = MAX_GRADIENT_NORM / mx.nd.maximum(norm, MAX_GRADIENT_NORM)',
        'factor = MAX_GRADIENT_NORM / norm',
        'tests/training/test_update.py::test_a_small_gradient_is_not_clipped',
    ),
    (
        'the loss scale not divided out',
        'bert/training/update.py',
        'divisor = samples * loss_scale.value',
        'divisor = samples',
        'tests/training/test_update.py::test_the_loss_scale_leaves_the_update_as_it_is',
    ),
    (
        'the loss scale never grows',
        'bert/training/update.py',
        'self.value *= 2',
        'self.value *= 1',
        'tests/training/test_update.py::test_loss_scale_by_hand',
    ),
    (
        'the same dropout in each step',
        'bert/training/update.py',
        'np.random.SeedSequence([seed, step, rank])',
        'np.random.SeedSequence([seed, 0, rank])',
        'tests/training/test_update.py::test_each_step_has_its_own_random_numbers',
    ),
    (
        'the same dropout in each worker',
        'bert/training/update.py',
        'np.random.SeedSequence([seed, step, rank])',
        'np.random.SeedSequence([seed, step])',
        'tests/training/test_among_workers.py',
    ),
    (
        'gradients of an update stay for the next',
        'bert/training/update.py',
        '            clear_gradients(self.model)\n',
        '            pass\n',
        f'{FINETUNE}accumulated_gradients_equal_the_large_batch',
    ),
    (
        'bias correction counts from 0',
        'bert/training/optimizer.py',
        'step = self._index_update_count[indices[0]]',
        'step = self._index_update_count[indices[0]] + 1',
        'tests/training/test_optimizer.py::test_first_step_by_hand '
        'tests/training/test_optimizer.py::test_as_gluonnlps_and_as_the_equations',
    ),
    (
        'bias correction without epsilon',
        'bert/training/optimizer.py',
        "'epsilon': self.epsilon * root",
        "'epsilon': self.epsilon",
        'tests/training/test_optimizer.py::test_states_over_several_steps',
    ),
    (
        'float16 weights without float32 copies',
        'bert/training/optimizer.py',
        'return self.multi_precision and weight.dtype == np.float16',
        'return False',
        'tests/training/test_optimizer.py::test_steps_too_small_for_float16_add_up',
    ),
    (
        'the parameters of another step are taken',
        'bert/training/states.py',
        'if sha256(partner) != expected:',
        'if not expected:',
        f'{PRETRAIN}damaged_checkpoint_is_passed_over',
    ),
    (
        'the optimizer forgets its steps',
        'bert/training/states.py',
        'counts = dict.fromkeys(_indices(model, trainer).values(), step)',
        'counts = dict.fromkeys(_indices(model, trainer).values(), 0)',
        f'{FINETUNE}a_stopped_run_goes_on',
    ),
    (
        'new states are deleted in place of old ones',
        'bert/training/states.py',
        'saved_steps(folder)[:-keep]',
        'saved_steps(folder)[keep:]',
        f'{PRETRAIN}states_are_plain_arrays {PRETRAIN}damaged_checkpoint_is_passed_over '
        f'{PRETRAIN}resumed_run_has_the_same_bits',
    ),
    (
        '--resume with other flags',
        'bert/training/folder.py',
        'if before != now:',
        "if before != now and name == 'devices':",
        f'{FINETUNE}another_run_is_not_resumed',
    ),
    (
        'an idle device computes at weight 1',
        'bert/training/devices.py',
        '[(filler, 0)]',
        '[(filler, 1)]',
        f'{PRETRAIN}idle_device',
    ),
    (
        'all workers compute all batches of an evaluation',
        'bert/training/devices.py',
        '        return None\n    return contexts[number // workers.count',
        '        pass\n    return contexts[number // workers.count',
        'tests/training/test_among_workers.py::test_every_batch_of_an_evaluation_is_one_workers',
    ),
    (
        'batches in the order of their lengths',
        'bert/training/batches.py',
        'return [batches[i] for i in rng.permutation(len(batches))]',
        'return batches',
        'tests/training/test_batches.py::test_batches_come_in_random_order_of_length',
    ),
    (
        'the rest of a bucket is lost',
        'bert/training/batches.py',
        '    if len(rest):\n        updates.append(cut(rest, size))\n',
        '',
        'tests/training/test_among_workers.py::test_every_row_is_the_share_of_one_worker',
    ),
    (
        'results in the order of the batches',
        'bert/training/stream.py',
        'self.results[row] = result',
        'self.results[-self.missing] = result',
        'tests/training/test_stream.py::test_results_are_in_the_order_of_the_rows',
    ),
]

MODEL = [
    (
        'no dropout of the embeddings',
        'bert/model/encoder.py',
        '        if self._dropout:\n            encodings = self.dropout_layer(encodings)\n',
        '',
        'tests/model/test_dropout.py',
    ),
    (
        'no dropout before the residual (stock)',
        'bert/model/encoder.py',
        'dropped = F.Dropout(data, p=self.rate) if self.rate else data',
        'dropped = data',
        'tests/model/test_dropout.py',
    ),
    (
        'no dropout before the residual (fused)',
        'bert/model/encoder.py',
        'F, data, residual, gamma, beta, seed, self._epsilon, self.rate, self.site',
        'F, data, residual, gamma, beta, seed, self._epsilon, 0, self.site',
        'tests/model/test_dropout.py',
    ),
    (
        'the same mask in every attention',
        'bert/model/encoder.py',
        'cell.attention_cell.site = 3 * number',
        'cell.attention_cell.site = 0',
        'tests/model/test_dropout.py',
    ),
    (
        'the same mask at both residuals of a layer',
        'bert/model/encoder.py',
        '(cell.ffn, 3 * number + 2)',
        '(cell.ffn, 3 * number + 1)',
        'tests/model/test_dropout.py',
    ),
    (
        'the same masks in each layer',
        'bert/model/encoder.py',
        'for number, cell in enumerate(encoder.transformer_cells):',
        'for number, cell in ((0, cell) for cell in encoder.transformer_cells):',
        'tests/model/test_dropout.py',
    ),
    (
        'no dropout of the attention (stock)',
        'bert/model/attention.py',
        'self.dropout_layer(F.softmax(scores if mask is None else scores + mask, axis=-1))',
        'F.softmax(scores if mask is None else scores + mask, axis=-1)',
        'tests/model/test_dropout.py',
    ),
    (
        "no dropout of the first token's attention (stock)",
        'bert/model/attention.py',
        'weights = self.dropout_layer(F.softmax(scores, axis=-1))',
        'weights = F.softmax(scores, axis=-1)',
        'tests/model/test_dropout.py',
    ),
    (
        'no dropout of the attention (fused)',
        'bert/model/attention.py',
        "'rate': self._dropout,",
        "'rate': 0,",
        'tests/model/test_dropout.py',
    ),
    (
        'no dropout of the pooled encoding',
        'bert/model/build.py',
        "        dropout = bert.settings['dropout']\n",
        '        dropout = 0\n',
        'tests/model/test_dropout.py',
    ),
    (
        'padding attended to (stock)',
        'bert/model/attention.py',
        'F.broadcast_greater_equal(key,',
        'F.broadcast_greater(key,',
        'tests/model/test_encoder.py::test_outputs_and_gradients_are_those_of_gluonnlp',
    ),
    (
        'attention not scaled for the first token (stock)',
        'bert/model/attention.py',
        'split(self.project(F, queries, query)) / width**0.5',
        'split(self.project(F, queries, query))',
        'tests/model/test_encoder.py::test_outputs_and_gradients_are_those_of_gluonnlp',
    ),
    (
        'no positions',
        'bert/model/encoder.py',
        'inputs + F.Embedding(each, position_weight, self._max_length, self._units)',
        'inputs + 0 * F.Embedding(each, position_weight, self._max_length, self._units)',
        'tests/model/test_encoder.py::test_outputs_and_gradients_are_those_of_gluonnlp',
    ),
    (
        'initialised ten times as large',
        'bert/model/build.py',
        'INITIALIZER = 0.02',
        'INITIALIZER = 0.2',
        'tests/model/test_loading.py::test_a_new_head_is_normal',
    ),
    (
        'a missing tensor of the encoder is taken',
        'bert/model/parameters.py',
        'broken = [name for name in missing if not name.startswith(tuple(may_lack))]',
        'broken = []',
        'tests/checkpoints/test_reading.py::test_a_missing_tensor',
    ),
    (
        'the head keeps the order of other labels',
        'bert/model/parameters.py',
        'rows = [labels.index(label) for label in wanted]',
        'rows = list(range(len(wanted)))',
        'tests/test_other_models.py::test_classes_in_another_order_are_put_into_that_of_the_task',
    ),
    (
        'a configuration of any size is built',
        'bert/model/loading.py',
        'if count > most:',
        'if count > 1000 * most:',
        'tests/checkpoints/test_reading.py::test_a_configuration_of_far_more_than_the_weights',
    ),
    (
        'the mean of all tokens, padding too',
        'bert/model/vectors.py',
        'return F.broadcast_div(F.sum(encodings, axis=1), lengths)',
        'return F.mean(encodings, axis=1)',
        'tests/finetuning/test_embedding.py::test_a_mean_by_hand',
    ),
]

OPERATORS = [
    (
        'no scaling of what dropout keeps',
        'bert/ops/random.h',
        'scale_ = active_ ? 65536.0f / (65536 - threshold_) : 1.0f;',
        'scale_ = 1.0f;',
        f'tests/model/test_dropout.py {OPS}the_rate_of_dropout',
    ),
    (
        'a generator without its site',
        'bert/ops/random.h',
        'static_cast<uint32_t>(seed >> 32), site,',
        'static_cast<uint32_t>(seed >> 32), 0,',
        'tests/model/test_dropout.py',
    ),
    (
        'the same mask in every head and row',
        'bert/ops/random.h',
        '                           plane};',
        '                           0};',
        'tests/model/test_dropout.py',
    ),
    (
        'the gradient passes what was dropped',
        'bert/ops/layer_norm.cc',
        'if (dx && in.dropout) {',
        'if (dx && !dx) {',
        f'{OPS}dropout_add_layer_norm',
    ),
    (
        'an update with infinite gradients',
        'bert/ops/adam.cc',
        'std::isfinite(factor) && factor != 0',
        'factor != 0',
        f'{OPS}adam_changes_nothing_where_the_factor_is_unusable',
    ),
    (
        'the weight decay scaled too',
        'bert/ops/adam.cc',
        '(scale * m[j] / (std::sqrt(v[j]) + epsilon) + decay * w[j])',
        'scale * (m[j] / (std::sqrt(v[j]) + epsilon) + decay * w[j])',
        f'{OPS}adam',
    ),
    (
        'the last of equal classes is the best',
        'bert/ops/cross_entropy.cc',
        'return std::find(scores, scores + classes, highest) - scores;',
        'int64_t i = classes - 1;\n  while (i > 0 && scores[i] != highest) --i;\n  return i;',
        f'{OPS}the_first_of_equal_classes_is_the_best',
    ),
    (
        'a library of other sources is used',
        'bert/ops/build.py',
        '    parts += [path.read_bytes() for path in source_files()]\n',
        '',
        'tests/ops/test_ops_build.py::test_the_cache_key_depends_on_everything_that_matters',
    ),
]

CHECKPOINTS = [
    (
        'query and key exchanged',
        'bert/checkpoints/huggingface.py',
        "    'attention.self.query.weight': 'attention_cell.proj_query.weight',\n"
        "    'attention.self.query.bias': 'attention_cell.proj_query.bias',\n"
        "    'attention.self.key.weight': 'attention_cell.proj_key.weight',\n"
        "    'attention.self.key.bias': 'attention_cell.proj_key.bias',\n",
        "    'attention.self.query.weight': 'attention_cell.proj_key.weight',\n"
        "    'attention.self.query.bias': 'attention_cell.proj_key.bias',\n"
        "    'attention.self.key.weight': 'attention_cell.proj_query.weight',\n"
        "    'attention.self.key.bias': 'attention_cell.proj_query.bias',\n",
        'tests/checkpoints/test_huggingface.py::test_published_names '
        'tests/test_other_models.py::'
        'test_load_bert_gives_the_encodings_of_the_library_that_wrote_it',
    ),
    (
        'the two LayerNorms of a layer exchanged',
        'bert/checkpoints/huggingface.py',
        "    'attention.output.LayerNorm.weight': 'layer_norm.gamma',\n",
        "    'attention.output.LayerNorm.weight': 'ffn.layer_norm.gamma',\n",
        'tests/checkpoints/test_huggingface.py::test_published_names '
        'tests/test_other_models.py::'
        'test_load_bert_gives_the_encodings_of_the_library_that_wrote_it',
    ),
    (
        'the names of 2018 unknown',
        'bert/checkpoints/huggingface.py',
        "    name = re.sub(r'LayerNorm\\.gamma$', 'LayerNorm.weight', name)\n",
        '',
        'tests/checkpoints/test_huggingface.py::test_all_spellings_load_alike',
    ),
    (
        'the head of a tagger taken for a classifier',
        'bert/checkpoints/huggingface.py',
        'return parameters, head if architecture in (None, FINETUNED_CLASS) else {}',
        'return parameters, head',
        'tests/checkpoints/test_huggingface.py::test_the_head_of_another_task_is_left_out',
    ),
    (
        'kernels of TensorFlow not transposed',
        'bert/checkpoints/tensorflow.py',
        "array.T if name.endswith('/kernel') else array",
        'array',
        'tests/checkpoints/test_tensorflow.py::test_kernels_are_transposed_and_nothing_else',
    ),
    (
        'everything unpickled',
        'bert/checkpoints/tensors.py',
        'weights_only=True',
        'weights_only=False',
        'tests/checkpoints/test_huggingface.py::test_pytorch_is_asked_for_tensors_alone',
    ),
    (
        'bfloat16 shifted by a bit too few',
        'bert/checkpoints/tensors.py',
        'upper.astype(np.uint32) << 16',
        'upper.astype(np.uint32) << 15',
        'tests/checkpoints/test_huggingface.py::test_bfloat16_tensors',
    ),
    (
        'a header of any size is read',
        'bert/checkpoints/tensors.py',
        'if size > min(MAX_SAFETENSORS_HEADER, os.fstat(file.fileno()).st_size):',
        'if size > 2**63:',
        'tests/checkpoints/test_huggingface.py::test_what_is_no_safetensors_file',
    ),
    (
        'an index that names other folders',
        'bert/checkpoints/tensors.py',
        "re.fullmatch(r'[^/\\\\\\0]+\\.[^/\\\\\\0]+', name) is not None",
        "re.fullmatch(r'[^\\0]+\\.[^\\0]+', name) is not None",
        'tests/checkpoints/test_huggingface.py::test_a_wrong_index',
    ),
    (
        'the digests of the Hub not compared',
        'bert/checkpoints/hub.py',
        'if found != expected:',
        'if found[0] != expected[0]:',
        'tests/checkpoints/test_zoo.py::test_downloads_of_the_hub_that_are_broken',
    ),
    (
        'the digests of small files not compared',
        'bert/checkpoints/hub.py',
        'return size, hash_file(path, kind)',
        'return size, digest if len(digest) == 40 else hash_file(path, kind)',
        'tests/checkpoints/test_zoo.py::test_downloads_of_the_hub_that_are_broken',
    ),
    (
        'the checksum of the zoo not compared',
        'bert/checkpoints/zoo.py',
        'if not _has_sha1(temporary, sha1):',
        'if not temporary.is_file():',
        'tests/checkpoints/test_zoo_vocabulary.py tests/checkpoints/test_zoo.py',
    ),
    (
        'an array of any size is allocated',
        'bert/checkpoints/gluon.py',
        'self.left -= self.checked(count, dtype.itemsize) * dtype.itemsize',
        'self.left -= count * dtype.itemsize',
        'tests/checkpoints/test_gluon.py::test_promises '
        'tests/checkpoints/test_gluon.py::test_cut_off_anywhere',
    ),
    (
        'GELU in place of its approximation',
        'bert/checkpoints/config.py',
        "'gelu_new': 'approx_gelu',",
        "'gelu_new': 'gelu',",
        'tests/checkpoints/test_config.py::test_settings_and_their_defaults '
        'tests/checkpoints/test_config.py::test_settings_survive_the_round_trip',
    ),
    (
        'labels in the order of the file',
        'bert/checkpoints/config.py',
        'labels = [str(table[str(i)]) for i in range(len(table))]',
        'labels = [str(label) for label in table.values()]',
        'tests/checkpoints/test_config.py::test_labels',
    ),
    (
        'parameters outside the folder',
        'bert/checkpoints/reading.py',
        "Path(name).name != name or name in ('', '..')",
        "name in ('', '..')",
        'tests/checkpoints/test_source.py::test_damaged_finetune_json',
    ),
    (
        'the casing of the tokenizer ignored',
        'bert/checkpoints/reading.py',
        "lower = read_json(path).get('do_lower_case')",
        "lower = read_json(path).get('lower')",
        'tests/checkpoints/test_reading.py::test_casing_of_a_directory',
    ),
    (
        'weights with another vocabulary',
        'bert/checkpoints/reading.py',
        'if theirs.idx_to_token != plain_vocab(vocab).idx_to_token:',
        'if len(theirs) != len(plain_vocab(vocab)):',
        'tests/checkpoints/test_reading.py::test_weights_that_go_with_another_order_of_tokens',
    ),
    (
        'the masked-LM bias keeps the old ids',
        'bert/checkpoints/contents.py',
        "('word_embed.0.weight', 'decoder.3.weight', 'decoder.3.bias')",
        "('word_embed.0.weight', 'decoder.3.weight')",
        'tests/convert/test_comparison.py::test_other_ids_of_the_same_tokens',
    ),
]

CONVERT = [
    (
        'NaN is the same as anything',
        'bert/convert/comparison.py',
        'largest_difference(found, expected) <= limit',
        'not largest_difference(found, expected) > limit',
        'tests/convert/test_comparison.py::test_nan_is_not_the_same',
    ),
    (
        'a conversion kept whatever its outputs',
        'bert/convert/conversion.py',
        'if not all(comparison.is_same(array, expected[name]) for name, array in found.items()):',
        'if not found:',
        'tests/convert/test_conversion.py::test_a_result_with_other_outputs_is_not_kept',
    ),
    (
        'a conversion kept whatever its tensors',
        'bert/convert/comparison.py',
        'np.array_equal(array.astype(np.float32), theirs[name], equal_nan=True)',
        'array.shape == theirs[name].shape',
        'tests/convert/test_conversion.py::test_a_result_that_is_another_model_is_not_kept',
    ),
]

TASKS = [
    (
        'F1 of all classes together',
        'bert/tasks/metrics.py',
        'return f1_score(labels, predictions, zero_division=0)',
        "return f1_score(labels, predictions, average='micro', zero_division=0)",
        'tests/tasks/test_metrics.py::test_binary_metrics_by_hand',
    ),
    (
        'entailment and its opposite exchanged',
        'bert/tasks/table.py',
        "ENTAILMENT = ('not_entailment', 'entailment')",
        "ENTAILMENT = ('entailment', 'not_entailment')",
        'tests/tasks/test_table.py::test_row_of_the_table '
        'tests/finetuning/test_class_order.py::test_the_order_of_all_classes',
    ),
    (
        'the mismatched set in the matched file',
        'bert/tasks/table.py',
        "'MNLI/test_mismatched.tsv', (8, 9), submission='MNLI-mm.tsv'",
        "'MNLI/test_mismatched.tsv', (8, 9), submission='MNLI-m.tsv'",
        'tests/tasks/test_table.py::test_mnli',
    ),
    (
        'the best epoch by the second metric',
        'bert/finetuning/progress.py',
        'self.dev_metrics(epoch)[self.task.metrics[0]]',
        'self.dev_metrics(epoch)[self.task.metrics[-1]]',
        f'{FINETUNE}the_first_metric_chooses_the_best_epoch',
    ),
    (
        'quotes in GLUE files are special',
        'bert/tasks/files.py',
        "line.rstrip('\\r').split('\\t')) for number",
        "line.rstrip('\\r').replace('\"', '').split('\\t')) for number",
        'tests/tasks/test_task_files.py::test_quotes_and_odd_line_ends_are_text',
    ),
    (
        'rows of XNLI in all languages',
        'bert/tasks/files.py',
        'if _cell(path, row, column) == value]',
        'if _cell(path, row, column)]',
        'tests/tasks/test_task_files.py::test_xnli_in_one_language',
    ),
    (
        'whole numbers sorted as text',
        'bert/tasks/files.py',
        'labels = sorted(found, key=int)',
        'labels = sorted(found)',
        'tests/tasks/test_task_files.py::test_labels_are_found_and_sorted',
    ),
    (
        'the mean of the outputs before the softmax',
        'bert/tasks/submission.py',
        '[softmax(o, axis=1) for o in outputs]',
        'outputs',
        'tests/tasks/test_submission.py::test_the_mean_of_probabilities',
    ),
    (
        'scores above 5',
        'bert/tasks/submission.py',
        'np.clip(outputs[:, 0], LOWEST, HIGHEST)',
        'outputs[:, 0]',
        'tests/tasks/test_submission.py::test_numbers_are_averaged_and_clipped',
    ),
    (
        'a submission with indices from 1',
        'bert/tasks/submission.py',
        'if index != str(number):',
        'if index not in (str(number), str(number + 1)):',
        'tests/tasks/test_submission.py::test_each_defect_is_named',
    ),
    (
        'outputs in the order of the model',
        'bert/tasks/predictions.py',
        'return outputs[:, [written.index(label) for label in labels]]',
        'return outputs',
        'tests/finetuning/test_class_order.py::test_outputs_of_an_earlier_version_are_put_in_order',
    ),
]

FINETUNING = [
    (
        'the same batches in each epoch',
        'finetune_classifier.py',
        'np.random.default_rng([args.seed, epoch])',
        'np.random.default_rng([args.seed])',
        f'{FINETUNE}each_epoch_has_its_own_order',
    ),
    (
        'a short update divided by a whole one',
        'finetune_classifier.py',
        'updater.finish(seen.step, len(rows))',
        'updater.finish(seen.step, args.batch_size * args.accumulate)',
        f'{FINETUNE}a_short_update_takes_the_mean_of_its_own_rows',
    ),
    (
        '--resume blind to edited labels',
        'bert/finetuning/data.py',
        'for array in (*rows.ids, rows.first_lengths, rows.lengths, dataset.labels):',
        'for array in (*rows.ids, rows.first_lengths, rows.lengths):',
        f'{FINETUNE}another_run_is_not_resumed',
    ),
    (
        '--resume blind to other weights',
        'bert/training/folder.py',
        "for name in ('data', 'weights'):",
        "for name in ('data',):",
        f'{FINETUNE}another_run_is_not_resumed',
    ),
    (
        'one device does all the work',
        'bert/finetuning/step.py',
        'contexts, workers, filler=rows[:1]):',
        'contexts[:1], workers, filler=rows[:1]):',
        f'{FINETUNE}two_devices_equal_one',
    ),
    (
        'absolute errors in place of squared ones',
        'bert/finetuning/step.py',
        'mx.gluon.loss.L2Loss() if num_classes is None',
        'mx.gluon.loss.L1Loss() if num_classes is None',
        'tests/training/test_update.py::test_losses_of_single_rows',
    ),
    (
        'the training loss not a mean over the rows',
        'bert/finetuning/progress.py',
        '        self.loss += loss\n        self.rows += len(labels)\n',
        '        self.loss += loss\n        self.rows += 1\n',
        f'{FINETUNE}accumulated_gradients_equal_the_large_batch',
    ),
    (
        'the last epoch in place of the best',
        'bert/finetuning/output.py',
        "'parameters': self.parameters_path(history.best_epoch).name,",
        "'parameters': self.parameters_path(len(history.epochs)).name,",
        f'{FINETUNE}inference_from_the_output_directory_alone {FINETUNE}exactly_these_files '
        f'{FINETUNE}training_goes_on_from_an_output_directory',
    ),
    (
        'a model forgets its longest row',
        'bert/finetuning/flags.py',
        "if n == 'max_len'}",
        "if n == 'task_name'}",
        'tests/finetuning/test_finetuning_flags.py::'
        'test_for_another_task_only_the_length_is_remembered',
    ),
    (
        'the files of a later epoch are left',
        'bert/finetuning/output.py',
        "later += self.path.glob(parameters_name(name, 1).replace('_0.', '_*.'))",
        'later += []',
        f'{FINETUNE}a_new_run_in_a_used_folder',
    ),
    (
        'more epochs than --early_stop allows',
        'finetune_classifier.py',
        'epoch - history.best_epoch >= args.early_stop',
        'epoch - history.best_epoch > args.early_stop',
        f'{FINETUNE}early_stop',
    ),
]

EXPERIMENTS = [
    (
        'the deviation of a population',
        'bert/experiments/results.py',
        'np.std(values, ddof=1)',
        'np.std(values)',
        'tests/experiments/test_results.py::test_statistics_by_hand',
    ),
    (
        'the interval of a run without its own spread',
        'bert/experiments/results.py',
        '(RUN_INTERVAL, 1 + 1 / count)',
        '(RUN_INTERVAL, 1)',
        'tests/experiments/test_results.py::test_statistics_by_hand '
        'tests/experiments/test_results.py::test_one_more_run_falls_within_its_interval',
    ),
    (
        '90 % intervals',
        'bert/experiments/results.py',
        't.ppf(0.975, count - 1)',
        't.ppf(0.95, count - 1)',
        'tests/experiments/test_results.py::test_statistics_by_hand',
    ),
    (
        'runs compared whatever their data',
        'bert/experiments/plans.py',
        'if reason is None and not is_whole(ALL_TASKS[task], data):',
        'if False:',
        'tests/experiments/test_plans.py::test_other_data',
    ),
    (
        'runs of two settings in one folder',
        'bert/experiments/plans.py',
        "return {**settings, 'GLUE_DIR': str(data.resolve()), 'devices': devices}",
        "return {'GLUE_DIR': str(data.resolve()), 'devices': devices}",
        'tests/experiments/test_plans.py::test_the_hash_follows_what_the_numbers_depend_on',
    ),
    (
        'a finished run is done again',
        'bert/experiments/runs.py',
        'if (current.folder / RECORD).is_file():',
        "if (current.folder / 'record').is_file():",
        'tests/experiments/test_runs.py::test_finished_runs_are_not_done_again',
    ),
    (
        'another batch size for the published MNLI',
        'bert/experiments/recipes.py',
        "'MNLI': {**_LONG, 'epochs': 4, 'batch_size': 48, 'log_interval': 500}",
        "'MNLI': {**_LONG, 'epochs': 4, 'batch_size': 32, 'log_interval': 500}",
        'tests/experiments/test_recipes.py::test_settings',
    ),
]

SYSTEM = [
    (
        'files not flushed to the disk',
        'bert/system/files.py',
        '            os.fsync(file.fileno())\n',
        '            pass\n',
        'tests/system/test_files.py::'
        'test_replacing_flushes_the_whole_file_before_it_takes_its_place',
    ),
    (
        'files that only their owner can read',
        'bert/system/files.py',
        '        temporary.chmod(0o666 & ~umask)\n',
        '',
        'tests/system/test_files.py::test_the_file_has_the_mode_that_open_would_have_given',
    ),
    (
        'half a file left after an error',
        'bert/system/files.py',
        '    finally:\n        with contextlib.suppress(FileNotFoundError):\n'
        '            temporary.unlink()\n',
        '    finally:\n        pass\n',
        'tests/system/test_files.py::test_an_error_leaves_the_old_file_and_nothing_else',
    ),
    (
        'objects in the header of an array',
        'bert/system/npz.py',
        'if dtype.hasobject or dtype.names',
        'if dtype.names',
        'tests/system/test_npz.py::test_nothing_is_unpickled',
    ),
    (
        'an array of any size is unpacked',
        'bert/system/npz.py',
        'if info.file_size > self._limit:',
        'if info.file_size > 2**60:',
        'tests/system/test_npz.py::test_a_small_file_of_many_zeros',
    ),
    (
        'each of two runs with all threads',
        'bert/system/processes.py',
        'int(threads) // jobs if',
        'int(threads) if',
        'tests/experiments/test_runs.py::test_two_at_once '
        'tests/experiments/test_runs.py::test_each_has_a_gpu_of_its_own',
    ),
    (
        'two programs write to one place',
        'bert/system/processes.py',
        'fcntl.LOCK_EX | (0 if wait',
        'fcntl.LOCK_SH | (0 if wait',
        'tests/system/test_processes.py::test_a_place_is_held_until_its_process_has_ended',
    ),
    (
        'control characters of a file on the terminal',
        'bert/system/terminal.py',
        'if text.isprintable():',
        'if text:',
        'tests/system/test_terminal.py tests/system/test_errors.py',
    ),
]

DISTRIBUTED = [
    (
        'a lost process noticed after ten minutes',
        'bert/distributed/parameter_server.py',
        "'PS_HEARTBEAT_TIMEOUT': '15'",
        "'PS_HEARTBEAT_TIMEOUT': '600'",
        'tests/distributed/test_workers.py::test_a_lost_process_is_noticed_within_a_minute',
    ),
    (
        'each worker with the same rows',
        'bert/distributed/workers.py',
        'return items[self.rank :: self.count]',
        'return items[:: self.count]',
        'tests/training/test_among_workers.py::test_every_row_is_the_share_of_one_worker',
    ),
    (
        'parameters added up in place of broadcast',
        'bert/distributed/workers.py',
        '                copies[0][:] = 0\n',
        '                pass\n',
        'tests/distributed/test_workers.py::test_broadcast',
    ),
    (
        'workers with other data',
        'bert/distributed/workers.py',
        'if any(differing):',
        'if all(differing):',
        'tests/distributed/test_workers.py::test_check_same',
    ),
    (
        'servers left behind',
        'bert/cluster.py',
        '                each.process.kill()\n',
        '                pass\n',
        'tests/test_cluster.py::test_all_end_when_one_does',
    ),
]

CLI = [
    (
        'a wrong flag ends with status 1',
        'bert/system/errors.py',
        '    status = 2\n',
        '    status = 1\n',
        'tests/cli/test_program.py::test_run_reports_an_error_in_one_sentence',
    ),
    (
        'the second signal waits too',
        'bert/cli/program.py',
        'signal.signal(number, signal.SIG_DFL)',
        'signal.signal(number, signal.SIG_IGN)',
        'tests/cli/test_program.py::test_the_second_signal_ends_the_program_at_once',
    ),
    (
        'an infinite learning rate',
        'bert/cli/flags.py',
        'lambda x: 0 < x < math.inf',
        'lambda x: 0 < x',
        'tests/cli/test_cli_flags.py::test_number_types',
    ),
    (
        'a GPU named twice',
        'bert/cli/flags.py',
        'if not indices or len(set(indices)) < len(indices):',
        'if not indices:',
        'tests/cli/test_cli_flags.py',
    ),
    (
        'the log of a resumed run begins anew',
        'bert/cli/console.py',
        "mode='a' if append else 'w'",
        "mode='w'",
        f'{FINETUNE}a_stopped_run_goes_on {PRETRAIN}resumed_run_has_the_same_bits',
    ),
]

MUTANTS = [
    *TEXT,
    *DATA,
    *PRETRAINING,
    *TRAINING,
    *MODEL,
    *OPERATORS,
    *CHECKPOINTS,
    *CONVERT,
    *TASKS,
    *FINETUNING,
    *EXPERIMENTS,
    *SYSTEM,
    *DISTRIBUTED,
    *CLI,
]
