// The peer Fastify + pg: the endpoint as the manuals show it, with a response schema.
'use strict'

const cluster = require('node:cluster')
const { Pool, types } = require('pg')

const CONNECTIONS = 8 // the default of the service, too
const TIMESTAMPTZ = 1184
const PROCESSES = Number(process.env.PROCESSES)

const SELECT_CASES = `
SELECT
    case_id, user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
FROM medmitra.cases
WHERE user_id = $1
ORDER BY id
`

const text = { type: 'string' }
const textOrNull = { type: ['string', 'null'] }

const schema = {
  querystring: {
    type: 'object',
    required: ['user_id'],
    properties: { user_id: { type: 'string', format: 'uuid' } }
  },
  response: {
    200: {
      type: 'object',
      properties: {
        cases: {
          type: 'array',
          items: {
            type: 'object',
            properties: {
              case_id: text,
              user_id: text,
              patient_name: text,
              patient_age: { type: 'integer' },
              patient_gender: text,
              case_summary: textOrNull,
              status: textOrNull,
              created_at: textOrNull,
              updated_at: textOrNull
            }
          }
        }
      }
    }
  }
}

// Timestamps such as 2026-03-04 10:30:00.123456+00 stay text, because JavaScript's Date has no microseconds.
types.setTypeParser(TIMESTAMPTZ, (value) => `${value.slice(0, 10)}T${value.slice(11, -3)}Z`)

function serve () {
  const pool = new Pool({
    connectionString: process.env.DATABASE_URL,
    max: CONNECTIONS,
    options: '-c TimeZone=UTC'
  })
  const fastify = require('fastify')()
  fastify.get('/cases/all_cases', { schema }, async (request) => {
    const { rows } = await pool.query(SELECT_CASES, [request.query.user_id])
    return { cases: rows }
  })
  fastify.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
}

if (PROCESSES > 1 && cluster.isPrimary) {
  for (let i = 0; i < PROCESSES; i++) cluster.fork()
} else {
  serve()
}
