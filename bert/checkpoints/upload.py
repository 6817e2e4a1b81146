"""Upload a model directory to the Hugging Face Hub.

``huggingface_hub`` says where the Hub is and who the user is, and does the transport.
"""

from bert.checkpoints import hub
from bert.cli.console import is_shown
from bert.system.errors import ToolkitError, UsageError


def check_upload(repository):
    """Refuse a name that the Hub would refuse, and a user without a token, before any work."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
        is_name = hub.is_repository(repository)
    except HFValidationError:
        is_name = False
    if not is_name:
        raise UsageError(f'{repository} is not OWNER/NAME, the name of a model on the Hub')
    if constants.HF_HUB_OFFLINE:
        raise UsageError('nothing is uploaded to the Hub as long as HF_HUB_OFFLINE is set')
    if not get_token():
        raise ToolkitError(
            'the Hub accepts models from authenticated users only: set the variable HF_TOKEN, or '
            'log in with hf auth login'
        )


def upload(folder, repository, private=False):
    """Upload the files of a folder as one commit, to a model that is made if need be.

    Parameters
    ----------
    folder : Path
    repository : str
        ``OWNER/NAME``.
    private : bool
        Whether nobody else may see the model; one that others see already is left alone.

    Returns
    -------
    str
        The address of the commit.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    if not is_shown():
        disable_progress_bars()
    api = HfApi()
    names = sorted(path.name for path in folder.iterdir())
    try:
        # None: what the owner has as default.
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ToolkitError(
                f'{repository} is already on the Hub, and public: nothing is uploaded'
            )
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=names,
            commit_message='Upload a BERT with mxnet-bert-toolkit',
        )
    except ToolkitError:
        raise
    except Exception as error:  # the library's own, those of its transport and of Xet
        raise ToolkitError(explain(error, repository)) from None
    return commit.commit_url


def explain(error, repository):
    """Return a sentence about the failure of an upload."""
    causes = [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    for cause in causes:
        status = getattr(getattr(cause, 'response', None), 'status_code', None)
        if status == 401:
            return 'the Hub does not know the token: set HF_TOKEN, or log in with hf auth login'
        if status == 403:
            return f'the token does not allow writing to {repository} on the Hub'
        if status:
            return f'{repository} could not be uploaded: the Hub answered {status}'
    reason = (str(causes[0]).strip() or type(causes[0]).__name__).split('\n')[0]
    return f'{repository} could not be uploaded: {reason}'
