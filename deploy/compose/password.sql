-- Sets the password of the service's role to the secret medmitra_cases_password of compose.yaml.
\set password `cat /run/secrets/medmitra_cases_password`
ALTER ROLE medmitra_cases PASSWORD :'password';
