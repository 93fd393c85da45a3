"""What the handlers of every API work with: databases, policy, options of its group."""

from __future__ import annotations

from collections.abc import Sequence

from keystonemiddleware import auth_token
from oslo_config import cfg
from oslo_policy.policy import RuleDefault

from core.policy import Policy
from db.sessions import Databases


class ApiServices:
    """Made once per process and shared by all request threads.

    :param group: the API's group of options; :param rules: its policies
    """

    def __init__(
        self, conf: cfg.ConfigOpts, group: str, options: list[cfg.Opt], rules: Sequence[RuleDefault]
    ) -> None:
        conf.register_opts(options, group=group)
        for name, opts in auth_token.list_opts():
            conf.register_opts(opts, group=name)
        self.conf = conf
        self.options = conf[group]
        self.databases = Databases(conf)
        self.policy = Policy(conf, rules)
        self.auth_uri = conf.keystone_authtoken.www_authenticate_uri or ""

    def close(self) -> None:
        """Give the database connections back."""
        self.databases.dispose()
