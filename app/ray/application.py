"""`app.ray.application:application`, which a Serve config file imports. Imports ray lazily: it is optional."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from app.config import Settings, unknown_variables
from app.config_files import variables
from app.domain.errors import InvalidRequest
from app.ray.replica import Replica
from app.service.work_in_progress import DRAIN_S

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "Errata"
"""The name of the deployment, for the section `deployments` of a Serve config file."""
FURTHER_S = 15.0
"""The time that a stop takes on top of waiting for work, in seconds."""


def application(arguments: dict[str, Any]) -> "Application":
    """The Serve application. `arguments` are settings by their names, as in errata.toml; each replica reads the others
    from ERRATA_* variables of its node. Raises InvalidRequest for wrong settings, and for secrets, which Ray shows."""
    from ray import serve

    settings = settings_of(arguments)

    class Errata(Replica):
        def __init__(self, arguments: dict[str, Any]) -> None:
            context = serve.get_replica_context()
            # with autoscaling, no public API has the number of replicas
            super().__init__(settings_of(arguments), context.replica_tag, most_replicas(context._deployment_config))

        async def __serve_build_asgi_app__(self) -> Any:
            return await self.build()

        async def __del__(self) -> None:
            await self.stop()

    deployment = serve.deployment(
        serve.ingress()(Errata),
        name=NAME,
        max_ongoing_requests=2 * settings.slots,
        graceful_shutdown_timeout_s=settings.stop_grace_s + DRAIN_S + FURTHER_S,
    )
    return deployment.bind(arguments)


def settings_of(arguments: Mapping[str, Any]) -> Settings:
    """The settings of these arguments and this process's environment. Raises InvalidRequest, by name and without
    values."""
    if "log_secret" in arguments or urlsplit(str(arguments.get("store", ""))).password:
        raise InvalidRequest(
            "Ray shows an application's arguments to whoever reaches its dashboard: name secrets (ERRATA_LOG_SECRET, "
            "ERRATA_STORE with its password) in the environment of the nodes instead."
        )
    if unknown := unknown_variables(variables()):
        raise InvalidRequest(" ".join(unknown))
    try:
        return Settings(**arguments)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidRequest(f"The settings of the application are wrong: {wrong}.") from None


def most_replicas(config: Any) -> int:
    """The number of replicas that a deployment's configuration lets it grow to."""
    scaling = config.autoscaling_config
    return int(config.num_replicas if scaling is None else scaling.max_replicas)
