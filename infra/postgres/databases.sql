-- Two databases on one server; run once, when the volume is new. POSTGRES_USER owns them.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
