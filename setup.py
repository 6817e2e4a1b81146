"""Install the package ``bert`` and put the five scripts on PATH under their file names."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'bert/__init__.py').read_text()).group(1)

REQUIRES = [
    'gluonnlp==0.10.0',  # the last release for MXNet 1.x; its parameter names are the file format
    'huggingface_hub',
    # The metadata of MXNet ask for numpy 1; bert/system/compatibility.py makes it work with 2 too.
    'numpy>=1.17',
    'psutil',  # physical cores, which the standard library cannot count
    'requests',
    'safetensors',
    'scikit-learn',
    'scipy',
    'sentencepiece',
    # tokenizers 0.21.0 offers itself to Python 3.8 without a wheel for it.
    'tokenizers<0.21; python_version < "3.9"',
    'tokenizers; python_version >= "3.9"',
    'tqdm',
]

EXTRAS = {
    # mxnet and mxnet-cu112 install the same folder: choose one of these two extras.
    'cpu': ['mxnet==1.9.1'],  # the last release; Apache retired the project in 2023
    'cu112': [
        'mxnet-cu112==1.9.1',
        # The CUDA 11 libraries it links against, so that no system CUDA is needed. The soname of
        # cuDNN 9 is not the libcudnn.so.8 that the wheel asks for.
        'nvidia-cublas-cu11',
        'nvidia-cuda-nvrtc-cu11',
        'nvidia-cuda-runtime-cu11',
        'nvidia-cudnn-cu11<9',
        'nvidia-cufft-cu11',
        'nvidia-curand-cu11',
        'nvidia-cusolver-cu11',
        'nvidia-cusparse-cu11',
        'nvidia-nccl-cu11',
        'nvidia-nvtx-cu11',
    ],
    # For --kvstore horovod. It is compiled against the installed MXNet: see the README.
    'horovod': ['horovod==0.28.1'],
    # For bert.convert --to onnx. MXNet's exporter needs onnx.mapping, which onnx 1.19 dropped;
    # 1.16.2 is the release that the exported models were tested with.
    'onnx': ['onnx==1.16.2', 'onnxruntime'],
    # For create_pretraining_data.py --scheduler; pip takes the last release for each Python.
    'dask': ['distributed'],
    # To read Google's own checkpoints.
    'tensorflow': ['tensorflow-cpu'],
    # Formatting differs between releases of ruff.
    'dev': ['docutils', 'hypothesis', 'matplotlib>=3.7', 'pytest', 'pytest-xdist', 'ruff==0.17.6'],
    'fuzz': ['atheris', 'hypothesis'],
    'plot': ['matplotlib>=3.7'],  # legends outside the axes
    # torch is pinned to the release that the published parity figures were measured with.
    'parity': ['torch==2.13.0', 'transformers'],
}

setup(
    name='mxnet-bert-toolkit',
    version=VERSION,
    description='Fine-tune and pre-train BERT with MXNet/Gluon from the command line',
    long_description=(HERE / 'README.rst').read_text(encoding='utf8'),
    long_description_content_type='text/x-rst',
    license='Apache-2.0',
    python_requires='>=3.8,<3.13',  # MXNet 1.9.1 needs numpy 1, which ends before Python 3.13
    packages=find_packages(include=['bert', 'bert.*']),
    package_data={
        'bert.experiments': ['published/*/*.json'],
        'bert.ops': ['*.cc', '*.h'],  # compiled at first use
    },
    scripts=[
        'create_pretraining_data.py',
        'download_glue_data.py',
        'finetune_classifier.py',
        'glue.py',
        'run_pretraining.py',
    ],
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)
